"""The text of PYTORCH_CUDA_ALLOC_CONF, or what a snapshot says -> the settings of the caching allocator, as a torch version reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from profiler.allocator.options import DIVISION_SLOTS, IGNORED, Changes, parts_of, read_option
from profiler.errors import SpecError
from profiler.units import MIB

NEWEST = (2, 13)
"""The newest torch version whose allocator is modelled; newer ones are taken for this one."""
_MAX_REASON_CHARS = 300
_TEXTS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")

_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(_TEXTS, str),
    "expandable_segments": bool,
    "max_split_size": int,
    "garbage_collection_threshold": (int, float),
    "roundup_power2_divisions": dict,
}
"""What a snapshot says of the settings, and as what."""


@dataclass(frozen=True, kw_only=True)
class AllocatorConfig:
    """Settings of the allocator; the defaults are torch's."""

    expandable_segments: bool = False
    max_split_size_bytes: int | None = None
    """Blocks of this size and more are never split; None: no limit."""
    max_non_split_rounding_bytes: int = 20 * MIB
    """How much larger than the request an unsplittable block may be."""
    garbage_collection_threshold: float = 0.0
    """Share of the allowed memory above which unused blocks are given back; 0 is off."""
    roundup_power2_divisions: tuple[int, ...] = (0,) * DIVISION_SLOTS
    """Steps between two powers of two to which a size is rounded, for sizes from 1 MiB up, doubling; 0 or 1: round to 512 B."""
    large_segment_size_bytes: int = 20 * MIB
    memory_fraction: float | None = None
    """Share of the card that this process may reserve; None: all of it."""
    torch_version: tuple[int, int] = NEWEST
    ignored: tuple[str, ...] = field(default=())
    """Options that were read and change nothing that is modelled."""

    @classmethod
    def parse(cls, text: str, torch_version: tuple[int, int] = NEWEST) -> AllocatorConfig:
        """Return the settings that ``text`` such as ``expandable_segments:True,max_split_size_mb:128`` names.

        Raises:
            SpecError: an option is unknown, unknown to that version, or has an impossible value.
        """
        version = min(torch_version, NEWEST)
        config = cls(torch_version=version)
        for part in parts_of(text):
            config = _changed(config, read_option(part, version, version))
        return config

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], torch_version: tuple[int, int] = NEWEST) -> AllocatorConfig:
        """Return the settings that a snapshot says were in force; what it does not say is torch's default.

        The text of PYTORCH_CUDA_ALLOC_CONF is read first, then what is stated as values. What is left out of the text, `unread` says.

        Args:
            settings: the snapshot's ``allocator_settings``.
            torch_version: the version that wrote it.

        Raises:
            SpecError: a value is not possible.
        """
        version = min(torch_version, NEWEST)
        known = {name: settings[name] for name in _SETTINGS if name in settings}
        fraction, divisions = known.get("garbage_collection_threshold", 0.0), known.get("roundup_power2_divisions", {})
        wrong = [name for name, value in known.items() if not isinstance(value, _SETTINGS[name])]
        if wrong or not 0 <= fraction < 1 or any(type(number) is not int or not 0 <= number < 2**30 for number in divisions.values()):
            raise SpecError(f"The snapshot's allocator_settings hold an impossible {(wrong or ['value'])[0]}. Give the settings yourself.")
        stated: dict[str, Any] = {}
        if "expandable_segments" in known:
            stated["expandable_segments"] = known["expandable_segments"] and version >= (2, 1)
        if "max_split_size" in known:
            limit = known["max_split_size"]
            stated["max_split_size_bytes"] = limit if 0 < limit < 2**60 else None
        if "garbage_collection_threshold" in known:
            stated["garbage_collection_threshold"] = fraction
        if "roundup_power2_divisions" in known:
            stated["roundup_power2_divisions"] = tuple(divisions.get(str(1 << slot), 0) for slot in range(DIVISION_SLOTS))
        return replace(_read_text(settings, version)[0], **stated)

    def to_settings(self) -> dict[str, Any]:
        """Return what a snapshot would say of the settings: `from_settings` reads it; what snapshots do not tell is left out."""
        return {
            "expandable_segments": self.expandable_segments,
            "max_split_size": self.max_split_size_bytes or -1,
            "garbage_collection_threshold": self.garbage_collection_threshold,
            "roundup_power2_divisions": {str(1 << slot): number for slot, number in enumerate(self.roundup_power2_divisions)},
        }


def unread(settings: Mapping[str, Any]) -> list[str]:
    """Return what `AllocatorConfig.from_settings` leaves out of a snapshot's settings, and why: at most one sentence per reason."""
    return _read_text(settings, NEWEST)[1]


def _read_text(settings: Mapping[str, Any], version: tuple[int, int]) -> tuple[AllocatorConfig, list[str]]:
    """Return the settings that a snapshot's text names, and what of it is left out.

    The torch that wrote the snapshot took the text, and which one that was is a guess: options of all versions are read.
    """
    text = next((text for name in _TEXTS if isinstance(text := settings.get(name), str) and text), "")
    config, refusals = AllocatorConfig(torch_version=version), []
    try:
        parts = parts_of(text)
    except SpecError as error:
        parts, refusals = [], [error]
    for part in parts:
        try:
            config = _changed(config, read_option(part, version, NEWEST))
        except SpecError as error:
            refusals.append(error)
    left_out = []
    if refusals:
        reason = str(refusals[0])[:_MAX_REASON_CHARS]
        left_out.append(f"{len(refusals):,} of the allocator's settings could not be read and are taken for torch's defaults: {reason}")
    if config.memory_fraction is not None:
        left_out.append(
            f"per_process_memory_fraction:{config.memory_fraction:g} is left out, since the snapshot does not say how large the card is; "
            "to replay with it, give the settings and the card's size."
        )
    return replace(config, memory_fraction=None), left_out


def _changed(config: AllocatorConfig, changes: Changes) -> AllocatorConfig:
    """Return the settings with what one option more changes."""
    ignored = (*config.ignored, *changes.get(IGNORED, ()))
    return replace(config, **{**changes, IGNORED: ignored})

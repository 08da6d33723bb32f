"""The text of PYTORCH_CUDA_ALLOC_CONF -> the settings of the caching allocator, as the named torch version reads it.

Sources: c10/core/AllocatorConfig.h and c10/cuda/CUDAAllocatorConfig.h of torch 2.13, whose keys are all known here, and the behaviour of
the released libraries 2.0 to 2.13; where text and library disagreed, the library was taken. The names with ``hip`` are read by all builds
since torch 2.2 (pull request 110715) and by older ROCm builds, so that they count as their twins with ``cuda``.
``pinned_free_catch_all`` (pull request 178154) was proposed when 2.11 came out: 2.12 is the first that can have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from profiler.errors import SpecError, unknown_name
from profiler.units import MIB

NEWEST = (2, 13)
"""The newest torch version whose allocator is modelled; newer ones are taken for this one."""
_DIVISION_SLOTS = 16
_MAX_CHARS = 2_000
"""Longer than any setting that somebody writes."""
_MAX_REASON_CHARS = 300
_MAX_THREADS = 128
_ASSIGNMENT = re.compile(r"(?:export\s+|set\s+|\$env:)?PYTORCH_(?:CUDA_|HIP_)?ALLOC_CONF\s*=\s*")
_QUOTES = "\"' \t\r\n"
_TEXTS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
_TRUTHS = {"True": True, "true": True, "False": False, "false": False}

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
    roundup_power2_divisions: tuple[int, ...] = (0,) * _DIVISION_SLOTS
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
        for part in _parts(text):
            config = _with_option(config, part, version)
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
            stated["expandable_segments"] = known["expandable_segments"] and version >= _OPTIONS["expandable_segments"].since
        if "max_split_size" in known:
            limit = known["max_split_size"]
            stated["max_split_size_bytes"] = limit if 0 < limit < 2**60 else None
        if "garbage_collection_threshold" in known:
            stated["garbage_collection_threshold"] = fraction
        if "roundup_power2_divisions" in known:
            stated["roundup_power2_divisions"] = tuple(divisions.get(str(1 << slot), 0) for slot in range(_DIVISION_SLOTS))
        return replace(_read_text(settings, version)[0], **stated)

    def to_settings(self) -> dict[str, Any]:
        """Return what a snapshot would say of the settings: `from_settings` reads it; what snapshots do not tell is left out."""
        return {
            "expandable_segments": self.expandable_segments,
            "max_split_size": self.max_split_size_bytes or -1,
            "garbage_collection_threshold": self.garbage_collection_threshold,
            "roundup_power2_divisions": {str(1 << slot): number for slot, number in enumerate(self.roundup_power2_divisions)},
        }


def bare_text(text: str) -> str:
    """Return the settings alone of what people paste, such as ``export PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True"``."""
    return _ASSIGNMENT.sub("", text.strip(_QUOTES), count=1).strip(_QUOTES)


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
        parts = _parts(text)
    except SpecError as error:
        parts, refusals = [], [error]
    for part in parts:
        try:
            config = _with_option(config, part, NEWEST)
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


def _parts(text: str) -> list[str]:
    """Return the options, each as ``name:value``; lists in brackets are one value."""
    if len(text) > _MAX_CHARS:
        raise SpecError(f"The allocator's settings are {len(text):,} characters long; at most {_MAX_CHARS:,} are read.")
    parts: list[str] = re.findall(r"[^,\[\]]*\[[^\]]*\]|[^,]+", "".join(bare_text(text).split()))
    return parts


def _with_option(config: AllocatorConfig, part: str, version: tuple[int, int]) -> AllocatorConfig:
    """Return the settings with one option more, as it is known to a torch version."""
    name, separator, value = part.partition(":")
    if not separator or not name or not value:
        raise SpecError(f"{part!r} is not an allocator option. Write name:value, such as expandable_segments:True.")
    option = _OPTIONS.get(name)
    if option is None:
        known = [known for known, option in _OPTIONS.items() if option.since <= version]
        raise unknown_name("allocator option", name, known, f"torch {_dotted(version)} knows {', '.join(known)}.")
    if version < option.since:
        raise SpecError(
            f"Allocator option {name!r} came with torch {_dotted(option.since)}; this is torch {_dotted(version)}. Leave it out."
        )
    return option.apply(config, name, value)


@dataclass(frozen=True)
class _Option:
    """How one option is read, and the torch version that brought it."""

    apply: Callable[[AllocatorConfig, str, str], AllocatorConfig]
    since: tuple[int, int] = (2, 0)


def _whole_mb(field_name: str, above: int) -> Callable[[AllocatorConfig, str, str], AllocatorConfig]:
    def apply(config: AllocatorConfig, name: str, value: str) -> AllocatorConfig:
        if not value.isdecimal() or not above < int(value) < 2**40:
            raise SpecError(f"{name}:{value} is not possible. Use a whole number of MiB above {above}.")
        return _with(config, field_name, int(value) * MIB)

    return apply


def _ignored_whole(least: int) -> Callable[[AllocatorConfig, str, str], AllocatorConfig]:
    def apply(config: AllocatorConfig, name: str, value: str) -> AllocatorConfig:
        if not value.isdecimal() or not least <= int(value) < 2**40:
            raise SpecError(f"{name}:{value} is not possible. Use a whole number from {least}.")
        return _ignored(config, name)

    return apply


def _threads(config: AllocatorConfig, name: str, value: str) -> AllocatorConfig:
    if _power_of_two(name, value) > _MAX_THREADS:
        raise SpecError(f"{name}:{value} is not possible. Use a power of two up to {_MAX_THREADS}.")
    return _ignored(config, name)


def _truth(field_name: str | None) -> Callable[[AllocatorConfig, str, str], AllocatorConfig]:
    def apply(config: AllocatorConfig, name: str, value: str) -> AllocatorConfig:
        if value not in _TRUTHS:
            raise SpecError(f"{name}:{value} is not possible. Use True or False.")
        return _with(config, field_name, _TRUTHS[value]) if field_name else _ignored(config, name)

    return apply


def _share(field_name: str) -> Callable[[AllocatorConfig, str, str], AllocatorConfig]:
    def apply(config: AllocatorConfig, name: str, value: str) -> AllocatorConfig:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < 1 and not (field_name == "memory_fraction" and number == 1):
            raise SpecError(f"{name}:{value} is not possible. Use a number between 0 and 1.")
        return _with(config, field_name, number)

    return apply


def _backend(config: AllocatorConfig, name: str, value: str) -> AllocatorConfig:
    if value != "native":
        raise SpecError(f"{name}:{value} is another allocator, which is not modelled. Use native, or leave it out.")
    return config


def _divisions(config: AllocatorConfig, name: str, value: str) -> AllocatorConfig:
    if not value.startswith("["):
        return _with(config, "roundup_power2_divisions", (_power_of_two(name, value),) * _DIVISION_SLOTS)
    slots = [0] * _DIVISION_SLOTS
    last = -1
    for entry in value[1:-1].split(","):
        bound, separator, divisions = entry.partition(":")
        if not separator:
            raise SpecError(f"{name}: {entry!r} is not an entry. Write [256:1,512:2,1024:4,>:8]; sizes are in MiB.")
        number = _power_of_two(name, divisions)
        if bound == ">":
            # Up to 2.9 the rest begins with the last named entry itself.
            start = last + 1 if config.torch_version >= (2, 11) else max(last, 0)
            slots[start:] = [number] * (_DIVISION_SLOTS - start)
        else:
            slot = min(_power_of_two(name, bound).bit_length() - 1, _DIVISION_SLOTS - 1)
            first = 0 if last < 0 else slot  # the first entry also holds for all smaller sizes
            slots[first : slot + 1] = [number] * (slot + 1 - first)
            last = slot
    return _with(config, "roundup_power2_divisions", tuple(slots))


def _power_of_two(name: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1 or int(value) & (int(value) - 1):
        raise SpecError(f"{name}: {value!r} is not a power of two. Use 1, 2, 4, 8 and so on.")
    return int(value)


def _ignored(config: AllocatorConfig, name: str) -> AllocatorConfig:
    return replace(config, ignored=(*config.ignored, name))


def _with(config: AllocatorConfig, field_name: str, value: Any) -> AllocatorConfig:
    return replace(config, **{field_name: value})


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


_OPTIONS: dict[str, _Option] = {
    "expandable_segments": _Option(_truth("expandable_segments"), (2, 1)),
    "max_split_size_mb": _Option(_whole_mb("max_split_size_bytes", 20)),
    "max_non_split_rounding_mb": _Option(_whole_mb("max_non_split_rounding_bytes", 20), (2, 6)),
    "garbage_collection_threshold": _Option(_share("garbage_collection_threshold")),
    "roundup_power2_divisions": _Option(_divisions),
    "large_segment_size_mb": _Option(_whole_mb("large_segment_size_bytes", 1), (2, 11)),
    "per_process_memory_fraction": _Option(_share("memory_fraction"), (2, 11)),
    "backend": _Option(_backend),
    "release_lock_on_cudamalloc": _Option(_truth(None)),
    "release_lock_on_hipmalloc": _Option(_truth(None)),
    "pinned_use_cuda_host_register": _Option(_truth(None), (2, 1)),
    "pinned_use_hip_host_register": _Option(_truth(None), (2, 1)),
    "pinned_num_register_threads": _Option(_threads, (2, 1)),
    "pinned_use_background_threads": _Option(_truth(None), (2, 6)),
    "pinned_reserve_segment_size_mb": _Option(_ignored_whole(1), (2, 10)),
    "graph_capture_record_stream_reuse": _Option(_truth(None), (2, 9)),
    "pinned_free_catch_all": _Option(_truth(None), (2, 12)),
    "throw_on_cudamalloc_oom": _Option(_truth(None), (2, 13)),
    "pinned_max_round_threshold_mb": _Option(_ignored_whole(0), (2, 13)),
    "pinned_max_cached_size_mb": _Option(_ignored_whole(0), (2, 13)),
}

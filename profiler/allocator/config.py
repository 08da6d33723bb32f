"""The text of PYTORCH_CUDA_ALLOC_CONF -> the settings of the caching allocator, as the named torch version reads it.

Sources: c10/core/AllocatorConfig.h and c10/cuda/CUDAAllocatorConfig.h of torch 2.13, and the behaviour of the released libraries 2.0 to
2.13; where text and library disagreed, the library was taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from profiler.errors import SpecError, unknown_name
from profiler.units import MIB

NEWEST = (2, 13)
"""The newest torch version whose allocator is modelled; newer ones are taken for this one."""
_DIVISION_SLOTS = 16
_TRUTHS = {"True": True, "true": True, "False": False, "false": False}

_SETTINGS: dict[str, Any] = {
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
        for name, value in _options(text):
            option = _OPTIONS.get(name)
            if option is None:
                known = [known for known, option in _OPTIONS.items() if option.since <= version]
                raise unknown_name("allocator option", name, known, f"torch {_dotted(version)} knows {', '.join(known)}.")
            if version < option.since:
                raise SpecError(
                    f"Allocator option {name!r} came with torch {_dotted(option.since)}; this is torch {_dotted(version)}. Leave it out."
                )
            config = option.apply(config, name, value)
        return config

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], torch_version: tuple[int, int] = NEWEST) -> AllocatorConfig:
        """Return the settings that a snapshot says were in force; what it does not say is torch's default.

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
        limit = known.get("max_split_size", -1)
        slots = [divisions.get(str(1 << slot), 0) for slot in range(_DIVISION_SLOTS)]
        return cls(
            expandable_segments=known.get("expandable_segments", False) and version >= (2, 1),
            max_split_size_bytes=limit if 0 < limit < 2**60 else None,
            garbage_collection_threshold=fraction,
            roundup_power2_divisions=tuple(slots),
            torch_version=version,
        )

    def to_settings(self) -> dict[str, Any]:
        """Return what a snapshot would say of the settings: `from_settings` reads it; what snapshots do not tell is left out."""
        return {
            "expandable_segments": self.expandable_segments,
            "max_split_size": self.max_split_size_bytes or -1,
            "garbage_collection_threshold": self.garbage_collection_threshold,
            "roundup_power2_divisions": {str(1 << slot): number for slot, number in enumerate(self.roundup_power2_divisions)},
        }


def _options(text: str) -> Iterable[tuple[str, str]]:
    """Yield the name and value of each option; lists in brackets are one value."""
    for part in re.findall(r"[^,\[\]]*\[[^\]]*\]|[^,]+", text.replace(" ", "")):
        name, separator, value = part.partition(":")
        if not separator or not name or not value:
            raise SpecError(f"{part!r} is not an allocator option. Write name:value, such as expandable_segments:True.")
        yield name, value


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


def _truth(field_name: str | None) -> Callable[[AllocatorConfig, str, str], AllocatorConfig]:
    def apply(config: AllocatorConfig, name: str, value: str) -> AllocatorConfig:
        if value not in _TRUTHS:
            raise SpecError(f"{name}:{value} is not possible. Use True or False.")
        return _with(config, field_name, _TRUTHS[value]) if field_name else _ignored(config, name, value)

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


def _ignored(config: AllocatorConfig, name: str, value: str) -> AllocatorConfig:
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
    "pinned_use_cuda_host_register": _Option(_truth(None), (2, 1)),
    "pinned_num_register_threads": _Option(_ignored, (2, 1)),
    "pinned_use_background_threads": _Option(_truth(None), (2, 6)),
    "pinned_reserve_segment_size_mb": _Option(_ignored, (2, 10)),
    "graph_capture_record_stream_reuse": _Option(_truth(None), (2, 9)),
    "throw_on_cudamalloc_oom": _Option(_truth(None), (2, 13)),
    "pinned_max_round_threshold_mb": _Option(_ignored, (2, 13)),
    "pinned_max_cached_size_mb": _Option(_ignored, (2, 13)),
}

"""The text of PYTORCH_CUDA_ALLOC_CONF, option by option -> what each changes, and the torch version that brought it.

Sources: c10/core/AllocatorConfig.h and c10/cuda/CUDAAllocatorConfig.h of torch 2.13, whose keys are all known here, and the behaviour of
the released libraries 2.0 to 2.13; where text and library disagreed, the library was taken. The names with ``hip`` are read by all builds
since torch 2.2 (pull request 110715) and by older ROCm builds, so that they count as their twins with ``cuda``.
``pinned_free_catch_all`` (pull request 178154) was proposed when 2.11 came out: 2.12 is the first that can have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from profiler.errors import SpecError, unknown_name
from profiler.units import MIB

Version = tuple[int, int]
Changes = dict[str, Any]
"""Fields of `profiler.allocator.config.AllocatorConfig` and their values."""
_Reader = Callable[[str, str, Version], Changes]
DIVISION_SLOTS = 16
"""Sizes from 1 MiB up, doubling, that have their own divisions."""
IGNORED = "ignored"
"""What an option changes that has no effect on anything that is modelled."""
_MAX_CHARS = 2_000
"""Longer than any setting that somebody writes."""
_MAX_THREADS = 128
_ASSIGNMENT = re.compile(r"(?:export\s+|set\s+|\$env:)?PYTORCH_(?:CUDA_|HIP_)?ALLOC_CONF\s*=\s*")
_QUOTES = "\"' \t\r\n"
_TRUTHS = {"True": True, "true": True, "False": False, "false": False}


def bare_text(text: str) -> str:
    """Return the settings alone of what people paste, such as ``export PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True"``."""
    return _ASSIGNMENT.sub("", text.strip(_QUOTES), count=1).strip(_QUOTES)


def parts_of(text: str) -> list[str]:
    """Return the options, each as ``name:value``; lists in brackets are one value."""
    if len(text) > _MAX_CHARS:
        raise SpecError(f"The allocator's settings are {len(text):,} characters long; at most {_MAX_CHARS:,} are read.")
    parts: list[str] = re.findall(r"[^,\[\]]*\[[^\]]*\]|[^,]+", "".join(bare_text(text).split()))
    return parts


def read_option(part: str, rules: Version, accepted: Version) -> Changes:
    """Return what one option changes.

    Args:
        part: the option, as ``name:value``.
        rules: the torch version by whose rules the value is read.
        accepted: the torch version whose options are allowed; the same, but for a text that some torch is known to have taken.

    Raises:
        SpecError: it is no option, not one of that version, or has an impossible value.
    """
    name, separator, value = part.partition(":")
    if not separator or not name or not value:
        raise SpecError(f"{part!r} is not an allocator option. Write name:value, such as expandable_segments:True.")
    option = _OPTIONS.get(name)
    if option is None:
        known = [known for known, option in _OPTIONS.items() if option.since <= accepted]
        raise unknown_name("allocator option", name, known, f"torch {_dotted(accepted)} knows {', '.join(known)}.")
    if accepted < option.since:
        since = _dotted(option.since)
        raise SpecError(f"Allocator option {name!r} came with torch {since}; this is torch {_dotted(accepted)}. Leave it out.")
    return option.read(name, value, rules)


@dataclass(frozen=True)
class _Option:
    """How one option is read, and the torch version that brought it."""

    read: _Reader
    since: Version = (2, 0)


def _whole_mb(field_name: str, above: int) -> _Reader:
    def read(name: str, value: str, _: Version) -> Changes:
        if not value.isdecimal() or not above < int(value) < 2**40:
            raise SpecError(f"{name}:{value} is not possible. Use a whole number of MiB above {above}.")
        return {field_name: int(value) * MIB}

    return read


def _ignored_whole(least: int) -> _Reader:
    def read(name: str, value: str, _: Version) -> Changes:
        if not value.isdecimal() or not least <= int(value) < 2**40:
            raise SpecError(f"{name}:{value} is not possible. Use a whole number from {least}.")
        return {IGNORED: (name,)}

    return read


def _threads(name: str, value: str, _: Version) -> Changes:
    if _power_of_two(name, value) > _MAX_THREADS:
        raise SpecError(f"{name}:{value} is not possible. Use a power of two up to {_MAX_THREADS}.")
    return {IGNORED: (name,)}


def _truth(field_name: str | None) -> _Reader:
    def read(name: str, value: str, _: Version) -> Changes:
        if value not in _TRUTHS:
            raise SpecError(f"{name}:{value} is not possible. Use True or False.")
        return {field_name: _TRUTHS[value]} if field_name else {IGNORED: (name,)}

    return read


def _share(field_name: str) -> _Reader:
    def read(name: str, value: str, _: Version) -> Changes:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < 1 and not (field_name == "memory_fraction" and number == 1):
            raise SpecError(f"{name}:{value} is not possible. Use a number between 0 and 1.")
        return {field_name: number}

    return read


def _backend(name: str, value: str, _: Version) -> Changes:
    if value != "native":
        raise SpecError(f"{name}:{value} is another allocator, which is not modelled. Use native, or leave it out.")
    return {}


def _divisions(name: str, value: str, version: Version) -> Changes:
    if not value.startswith("["):
        return {"roundup_power2_divisions": (_power_of_two(name, value),) * DIVISION_SLOTS}
    slots = [0] * DIVISION_SLOTS
    last = -1
    for entry in value[1:-1].split(","):
        bound, separator, divisions = entry.partition(":")
        if not separator:
            raise SpecError(f"{name}: {entry!r} is not an entry. Write [256:1,512:2,1024:4,>:8]; sizes are in MiB.")
        number = _power_of_two(name, divisions)
        if bound == ">":
            # Up to 2.9 the rest begins with the last named entry itself.
            start = last + 1 if version >= (2, 11) else max(last, 0)
            slots[start:] = [number] * (DIVISION_SLOTS - start)
        else:
            slot = min(_power_of_two(name, bound).bit_length() - 1, DIVISION_SLOTS - 1)
            first = 0 if last < 0 else slot  # the first entry also holds for all smaller sizes
            slots[first : slot + 1] = [number] * (slot + 1 - first)
            last = slot
    return {"roundup_power2_divisions": tuple(slots)}


def _power_of_two(name: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1 or int(value) & (int(value) - 1):
        raise SpecError(f"{name}: {value!r} is not a power of two. Use 1, 2, 4, 8 and so on.")
    return int(value)


def _dotted(version: Version) -> str:
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

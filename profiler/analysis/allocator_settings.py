"""Allocator settings -> the text that users write for them, and the settings that are worth trying on a recording."""

from __future__ import annotations

from dataclasses import fields

from profiler.allocator.config import NEWEST, AllocatorConfig
from profiler.errors import SpecError
from profiler.units import MIB

DEFAULT = ""
"""The text of torch's default settings."""
EXPANDABLE = "expandable_segments:True"
TORCH_VERSIONS = tuple((2, minor) for minor in range(NEWEST[1], -1, -1))
"""Versions whose allocator is modelled, newest first."""

_PRESETS = (
    DEFAULT,
    EXPANDABLE,
    "max_split_size_mb:128",
    "max_split_size_mb:512",
    "roundup_power2_divisions:4",
    "roundup_power2_divisions:8",
    "large_segment_size_mb:64",
)
_COLLECTING = "garbage_collection_threshold:0.8,per_process_memory_fraction:1.0"
"""Collects only where a share of a card of known size is set."""


def label_of(text: str) -> str:
    """Return what people call the settings of this text."""
    return text or "default"


def presets(torch_version: tuple[int, int], *, has_capacity: bool) -> list[str]:
    """Return the texts of the settings to compare, the default first; those that this torch version knows."""
    texts = [*_PRESETS, _COLLECTING] if has_capacity else list(_PRESETS)
    return [text for text in texts if _is_known(text, torch_version)]


def text_of(config: AllocatorConfig) -> str:
    """Return the text that `AllocatorConfig.parse` reads as these settings; what is torch's default is left out."""
    default = AllocatorConfig(torch_version=config.torch_version)
    changed = {field.name for field in fields(config) if getattr(config, field.name) != getattr(default, field.name)}
    parts = {
        "expandable_segments": f"expandable_segments:{config.expandable_segments}",
        "max_split_size_bytes": f"max_split_size_mb:{(config.max_split_size_bytes or 0) // MIB}",
        "max_non_split_rounding_bytes": f"max_non_split_rounding_mb:{config.max_non_split_rounding_bytes // MIB}",
        "garbage_collection_threshold": f"garbage_collection_threshold:{config.garbage_collection_threshold:g}",
        "roundup_power2_divisions": f"roundup_power2_divisions:{_divisions(config.roundup_power2_divisions)}",
        "large_segment_size_bytes": f"large_segment_size_mb:{config.large_segment_size_bytes // MIB}",
        "memory_fraction": f"per_process_memory_fraction:{config.memory_fraction or 0:g}",
    }
    return ",".join(part for name, part in parts.items() if name in changed)


def _divisions(slots: tuple[int, ...]) -> str:
    if len(set(slots)) == 1:
        return str(slots[0])
    return "[" + ",".join(f"{1 << slot}:{max(number, 1)}" for slot, number in enumerate(slots)) + "]"


def _is_known(text: str, torch_version: tuple[int, int]) -> bool:
    try:
        AllocatorConfig.parse(text, torch_version)
    except SpecError:
        return False
    return True

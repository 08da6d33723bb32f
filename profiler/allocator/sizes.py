"""A requested size -> the bytes of its block and of its segment, and when a block that is larger is split.

Sources: round_size, get_allocation_size and should_split of c10/cuda/CUDACachingAllocator.cpp.
"""

from __future__ import annotations

from profiler.allocator.config import AllocatorConfig
from profiler.units import KIB, MIB

MIN_BLOCK_BYTES = KIB // 2
SMALL_BYTES = MIB
SMALL_SEGMENT_BYTES = 2 * MIB
MIN_OWN_SEGMENT_BYTES = 10 * MIB
SEGMENT_ROUNDING_BYTES = 2 * MIB
_ANY_SIZE = 2**63


def round_size(requested: int, config: AllocatorConfig) -> int:
    """Return the bytes that a request is rounded up to."""
    if requested < MIN_BLOCK_BYTES:
        return MIN_BLOCK_BYTES
    slot = min(max(requested.bit_length() - 1 - 20, 0), 15)
    divisions = config.roundup_power2_divisions[slot]
    if divisions == 1 and config.torch_version < (2, 4):
        return requested  # these versions then do not round at all
    if divisions > 1 and requested > MIN_BLOCK_BYTES * divisions:
        return _round_power2(requested, divisions)
    return -(-requested // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES


def segment_bytes(size: int, config: AllocatorConfig) -> int:
    """Return the bytes of the segment that is asked of the driver for a block of ``size``."""
    if size <= SMALL_BYTES:
        return SMALL_SEGMENT_BYTES
    if size < MIN_OWN_SEGMENT_BYTES:
        return config.large_segment_size_bytes
    return -(-size // SEGMENT_ROUNDING_BYTES) * SEGMENT_ROUNDING_BYTES


def page_bytes(config: AllocatorConfig, *, is_small: bool) -> int:
    """Return the bytes by which an expandable segment grows."""
    return SMALL_SEGMENT_BYTES if is_small else config.large_segment_size_bytes


def split_rule(config: AllocatorConfig, *, is_small: bool) -> tuple[int, int]:
    """Return below which size, and from how many bytes too many on, a block is split; else what is too much stays its slack."""
    if is_small or config.expandable_segments:
        return _ANY_SIZE, MIN_BLOCK_BYTES
    limit = config.max_split_size_bytes
    return _ANY_SIZE if limit is None else limit, SMALL_BYTES + 1


def _round_power2(size: int, divisions: int) -> int:
    """Round up to one of ``divisions`` steps between two powers of two."""
    if size & (size - 1) == 0:
        return size
    floor = 1 << (size.bit_length() - 1)
    step = floor >> (divisions.bit_length() - 1)
    return floor << 1 if step == 0 else -(-size // step) * step

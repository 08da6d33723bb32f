"""What the allocator holds at one instant, as plain data: segments, and the blocks that tile them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from profiler.errors import FormatError


class BlockStatus(StrEnum):
    """What a block is held by, in the words of ``torch.cuda.memory_snapshot()``."""

    ALLOCATED = "active_allocated"
    PENDING = "active_pending_free"
    """Freed, but another stream still uses it."""
    INACTIVE = "inactive"


_FREE = BlockStatus.INACTIVE


class BlockState(NamedTuple):
    """A piece of a segment."""

    address: int
    bytes: int
    requested_bytes: int
    status: BlockStatus


class SegmentState(NamedTuple):
    """A range that is mapped, and its blocks by address; of an expandable segment, one row of mapped pages."""

    address: int
    bytes: int
    stream: int
    is_small: bool
    blocks: tuple[BlockState, ...]
    is_expandable: bool = False
    range_address: int | None = None
    """Where the addresses of the whole expandable segment begin, if that is known to be below ``address``."""

    @classmethod
    def around(
        cls,
        active: Iterable[BlockState],
        *,
        address: int,
        num_bytes: int,
        stream: int,
        is_small: bool,
        is_expandable: bool = False,
        range_address: int | None = None,
    ) -> SegmentState:
        """Return the segment with its active blocks, by address; what lies between them is inactive.

        Raises:
            FormatError: blocks overlap or reach out of the segment.
        """
        return cls(address, num_bytes, stream, is_small, tuple(_tile(active, address, num_bytes)), is_expandable, range_address)

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + self.bytes

    @property
    def active_blocks(self) -> list[BlockState]:
        """The blocks that are not free."""
        return [block for block in self.blocks if block.status is not _FREE]


State = tuple[SegmentState, ...]
"""All segments by address."""


def _tile(active: Iterable[BlockState], address: int, num_bytes: int) -> list[BlockState]:
    """Return the blocks and the free ranges between them."""
    tiles = []
    here, end = address, address + num_bytes
    for block in active:
        start, size, _, _ = block
        if size <= 0 or start < here or start + size > end:
            raise FormatError(
                f"The block of {size} bytes at {start:#x} overlaps another or lies outside its segment "
                f"of {num_bytes} bytes at {address:#x}. The snapshot is damaged; write it again."
            )
        if start > here:
            tiles.append(BlockState(here, start - here, 0, _FREE))
        tiles.append(block)
        here = start + size
    if here < end:
        tiles.append(BlockState(here, end - here, 0, _FREE))
    return tiles


def reserved_bytes(state: State) -> int:
    """Return the bytes of all segments."""
    return sum(segment.bytes for segment in state)


def active_bytes(state: State) -> int:
    """Return the bytes of all blocks that are not free."""
    return sum(block.bytes for segment in state for block in segment.active_blocks)

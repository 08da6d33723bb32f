"""What the allocator holds at one instant, as plain data: segments, and the blocks that tile them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from profiler.errors import FormatError


class BlockStatus(StrEnum):
    """What a block is held by, in the words of ``torch.cuda.memory_snapshot()``."""

    ALLOCATED = "active_allocated"
    PENDING = "active_pending_free"
    """Freed, but another stream still uses it."""
    INACTIVE = "inactive"


class BlockState(NamedTuple):
    """A piece of a segment."""

    address: int
    bytes: int
    requested_bytes: int
    status: BlockStatus


@dataclass(frozen=True, slots=True)
class SegmentState:
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
        return [block for block in self.blocks if block.status is not BlockStatus.INACTIVE]


State = tuple[SegmentState, ...]
"""All segments by address."""


def _tile(active: Iterable[BlockState], address: int, num_bytes: int) -> Iterator[BlockState]:
    """Yield the blocks and the free ranges between them."""
    here, end = address, address + num_bytes
    for block in active:
        if block.bytes <= 0 or block.address < here or block.address + block.bytes > end:
            raise FormatError(
                f"The block of {block.bytes} bytes at {block.address:#x} overlaps another or lies outside its segment "
                f"of {num_bytes} bytes at {address:#x}. The snapshot is damaged; write it again."
            )
        if block.address > here:
            yield BlockState(here, block.address - here, 0, BlockStatus.INACTIVE)
        yield block
        here = block.address + block.bytes
    if here < end:
        yield BlockState(here, end - here, 0, BlockStatus.INACTIVE)


def reserved_bytes(state: State) -> int:
    """Return the bytes of all segments."""
    return sum(segment.bytes for segment in state)


def active_bytes(state: State) -> int:
    """Return the bytes of all blocks that are not free."""
    return sum(block.bytes for segment in state for block in segment.active_blocks)

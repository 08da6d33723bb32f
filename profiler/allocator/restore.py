"""A state, as a snapshot shows it, <-> an allocator that holds it."""

from __future__ import annotations

from itertools import pairwise

from profiler.allocator.allocator import CachingAllocator
from profiler.allocator.blocks import Block, Pool, Segment
from profiler.allocator.expandable import range_bytes
from profiler.allocator.sizes import page_bytes
from profiler.allocator.state import BlockState, BlockStatus, SegmentState, State

_FREE = BlockStatus.INACTIVE


def restore(allocator: CachingAllocator, state: State) -> dict[int, Block]:
    """Put ``state`` into an allocator that is empty and return its active blocks by address."""
    ranges: dict[int, list[SegmentState]] = {}
    for found in state:
        if found.range_address is None:
            ranges[found.address] = [found]
        else:
            ranges.setdefault(found.range_address, []).append(found)
    active: dict[int, Block] = {}
    for base, rows in ranges.items():
        pool = allocator.small if rows[0].is_small else allocator.large
        blocks = _blocks(_segment(allocator, pool, base, rows), rows)
        allocator.segments[base] = blocks[0]
        for left, right in pairwise(blocks):
            left.next, right.prev = right, left
        for block in blocks:
            if block.status is _FREE:
                block.segment.free.put(block)
            elif block.status is None:
                pool.put_unmapped(block)
            else:
                active[block.address] = block
    allocator.hold(active.values())
    stats = allocator.stats
    stats.reserved_bytes = allocator.driver.used_bytes = sum(found.bytes for found in state)
    stats.start_peaks()
    return active


def snapshot(allocator: CachingAllocator) -> State:
    """Return what the allocator holds, segments by address; rows of mapped pages are a segment each, as PyTorch shows them."""
    found = []
    for base in sorted(allocator.segments):
        row: list[Block] = []
        for block in [*allocator.blocks(base), None]:
            if block is not None and block.mapped:
                row.append(block)
            elif row:
                found.append(_row_state(row))
                row = []
    return tuple(found)


def _segment(allocator: CachingAllocator, pool: Pool, base: int, rows: list[SegmentState]) -> Segment:
    stream = rows[0].stream
    if not rows[0].is_expandable:
        return Segment(pool, stream, base, rows[0].bytes)
    page = page_bytes(allocator.config, is_small=rows[0].is_small)
    num_bytes = max(range_bytes(allocator.driver.total_bytes, page), -(-(rows[-1].end - base) // page) * page)
    return Segment(pool, stream, base, num_bytes, expandable=True, page_bytes=page)


def _blocks(segment: Segment, rows: list[SegmentState]) -> list[Block]:
    """Return the blocks of a segment by address, with what is not mapped between and behind its rows."""
    blocks: list[Block] = []
    here = segment.address
    for row in rows:
        if row.address > here:
            blocks.append(Block(segment, here, row.address - here, None))
        for address, size, requested, status in row.blocks:
            blocks.append(Block(segment, address, size, status, requested))
        here = row.end
    end = segment.address + segment.bytes
    if end > here:
        blocks.append(Block(segment, here, end - here, None))
    return blocks


def _row_state(row: list[Block]) -> SegmentState:
    first = row[0]
    blocks = tuple(
        BlockState(block.address, block.size, 0 if block.is_available else block.requested, block.status or _FREE) for block in row
    )
    num_bytes = sum(block.size for block in row)
    expandable = first.segment.expandable
    base = first.segment.address if expandable else None
    return SegmentState(first.address, num_bytes, first.stream, first.pool.is_small, blocks, expandable, base)

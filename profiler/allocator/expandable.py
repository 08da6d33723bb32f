"""Expandable segments: one range of addresses a pool and stream, to which pages are mapped as they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from profiler.allocator.blocks import Block, Pool, Segment
from profiler.allocator.sizes import page_bytes
from profiler.allocator.state import BlockStatus

if TYPE_CHECKING:
    from profiler.allocator.allocator import CachingAllocator


def best_fit(blocks: Iterator[Block]) -> Block | None:
    """Return which of the blocks that are large enough, smallest first, to use: while the next one could grow to less, it is the better."""
    best = next(blocks, None)
    while best is not None and best.segment.expandable:
        following = next(blocks, None)
        if following is None or _reach(following) >= _reach(best):
            break
        best = following
    return best


def _reach(block: Block) -> int:
    """Return the size a block can grow to."""
    return block.size + (block.next.size if block.next is not None and not block.next.mapped else 0)


def allocate(allocator: CachingAllocator, pool: Pool, size: int, stream: int) -> Block | None:
    """Map what is missing and return a block of at least ``size`` bytes, out of all lists; None where the card is full."""
    block = _find(allocator, pool, size, stream)
    if block is not None and not block.mapped:
        block = map_pages(allocator, block, min(block.size, size))
    while block is not None and block.size < size:
        unmapped = block.next
        assert unmapped is not None
        block = map_pages(allocator, unmapped, min(size - block.size, unmapped.size))
    if block is not None:
        block.segment.free.take(block)
    return block


def _find(allocator: CachingAllocator, pool: Pool, size: int, stream: int) -> Block | None:
    """Return where the block shall begin: an unmapped range, or the free block right before it; None if no card has that much."""
    for unmapped in pool.unmapped.get(stream, ()):
        before = unmapped.prev
        start = before if before is not None and before.is_available else unmapped
        if _room(start, size) >= size:
            return start
    page = page_bytes(allocator.config, is_small=pool.is_small)
    num_bytes = range_bytes(allocator.driver.total_bytes, page)
    address = allocator.driver.address_for(num_bytes)
    segment = Segment(pool, stream, address, num_bytes, expandable=True, page_bytes=page)
    block = allocator.segments[address] = Block(segment, address, num_bytes, None)
    pool.put_unmapped(block)
    return block if num_bytes >= size else None  # the range stays, as in the original


def range_bytes(total_bytes: int, page: int) -> int:
    """Return the addresses that an expandable segment reserves: whole pages for 9/8 of the card's memory."""
    return -(-(total_bytes + total_bytes // 8) // page) * page


def _room(block: Block | None, enough: int) -> int:
    """Return the bytes of available blocks in a row, counted until they are enough."""
    num_bytes = 0
    while num_bytes < enough and block is not None and block.is_available:
        num_bytes += block.size
        block = block.next
    return num_bytes


def map_pages(allocator: CachingAllocator, block: Block, size: int) -> Block | None:
    """Map whole pages to the first ``size`` bytes of an unmapped range; return their free block, None where the card is full."""
    segment, pool = block.segment, block.segment.pool
    end = block.address + size - segment.address
    num_bytes = -(-end // segment.page_bytes) * segment.page_bytes - (block.address - segment.address)
    if not allocator.driver.reserve(num_bytes):
        return None
    address = block.address
    pool.take_unmapped(block)
    if num_bytes < block.size:
        pool.put_unmapped(block.cut(num_bytes))
    block.status = BlockStatus.INACTIVE
    block = pool.join(block)
    segment.free.put(block)
    allocator.grew("segment_map", address, num_bytes, block.stream)
    return block


def unmap(allocator: CachingAllocator, block: Block) -> None:
    """Unmap the whole pages inside a free block; what is left before and after stays free."""
    segment, pool = block.segment, block.segment.pool
    offset = block.address - segment.address
    first = -(-offset // segment.page_bytes) * segment.page_bytes
    last = (offset + block.size) // segment.page_bytes * segment.page_bytes
    if last <= first:
        return
    segment.free.take(block)
    if first > offset:
        upper = block.cut(first - offset)
        segment.free.put(block)
        block = upper
    if segment.address + last < block.address + block.size:
        segment.free.put(block.cut(last - first))
    address, num_bytes = block.address, block.size
    block.status = None
    block = pool.join(block)
    pool.put_unmapped(block)
    allocator.shrank("segment_unmap", address, num_bytes, block.stream)
    if not block.is_split:
        pool.take_unmapped(block)
        del allocator.segments[segment.address]

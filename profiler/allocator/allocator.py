"""PyTorch's CUDA caching allocator as a model: the same requests give the same segments, blocks, addresses and out-of-memory errors.

Reproduced are the decisions of c10/cuda/CUDACachingAllocator.cpp from torch 2.0 to 2.13: rounding, best fit, splitting, merging, growing by
segments or by pages, releasing and retrying. The driver is a `Driver`: it hands out addresses and knows the card's capacity.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import final

from profiler.allocator import expandable
from profiler.allocator.blocks import Block, Pool, Segment
from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.sizes import SMALL_BYTES, round_size, segment_bytes
from profiler.allocator.state import BlockStatus
from profiler.allocator.stats import Stats
from profiler.errors import SpecError

_ALLOCATED, _FREE = BlockStatus.ALLOCATED, BlockStatus.INACTIVE


@final
@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The allocator's answer where memory ran out, and how things stood then."""

    requested_bytes: int
    segment_bytes: int
    """What was asked of the driver."""
    reserved_bytes: int
    allocated_bytes: int
    largest_free_bytes: int
    """The largest free block of the pool and stream that were looked in."""
    capacity_bytes: int | None


class CachingAllocator:
    """The allocator of one device.

    Args:
        config: its settings.
        driver: the card.
        on_segment: is told of ``segment_alloc``, ``segment_free``, ``segment_map`` and ``segment_unmap`` with address, bytes and stream.
    """

    def __init__(
        self,
        config: AllocatorConfig | None = None,
        driver: Driver | None = None,
        on_segment: Callable[[str, int, int, int], None] | None = None,
    ) -> None:
        self.config = config or AllocatorConfig()
        self.driver = driver or Driver()
        self.stats = Stats()
        self.small, self.large = Pool(self.config, is_small=True), Pool(self.config, is_small=False)
        self.segments: dict[int, Block] = {}
        """The first block of each segment, by the segment's address."""
        self.on_segment = _ignore if on_segment is None else on_segment
        self._waiting: dict[Block, None] = {}
        self._rounded: dict[int, int] = {}
        fraction = self.config.memory_fraction
        if fraction is not None and not self.driver.knows_total:
            raise SpecError(f"A memory fraction of {fraction} needs the card's size. Give a capacity, such as 24GiB.")
        self.allowed_bytes = None if fraction is None else int(fraction * self.driver.total_bytes)
        self._collects = self.allowed_bytes is not None and self.config.garbage_collection_threshold > 0

    def malloc(self, requested: int, stream: int = 0) -> Block | OutOfMemory:
        """Return a block of at least ``requested`` bytes, or how memory ran out."""
        size = self._rounded.get(requested)
        if size is None:
            size = self._rounded[requested] = round_size(requested, self.config)
        pool = self.small if size <= SMALL_BYTES else self.large
        if pool.takes_best_fit:
            free = pool.free.get(stream)
            block = None if free is None else free.take_best(size)
        else:
            block = self._fit(pool, size, stream)
        if block is None:
            block = self._grow(pool, size, stream)
        if block is None:
            return self._out_of_memory(pool, requested, size, stream)
        if block.size - size >= pool.least_rest_bytes and size < pool.split_below_bytes:
            rest = block.cut(size)
            rest.segment.free.put(rest)
        block.status, block.requested = _ALLOCATED, requested
        size, stats = block.size, self.stats
        stats.allocated_bytes = allocated = stats.allocated_bytes + size
        stats.active_bytes = active = stats.active_bytes + size
        stats.requested_bytes = requested = stats.requested_bytes + requested
        if allocated > stats.peak_allocated_bytes:
            stats.peak_allocated_bytes = allocated
        if active > stats.peak_active_bytes:
            stats.peak_active_bytes = active
        if requested > stats.peak_requested_bytes:
            stats.peak_requested_bytes = requested
        return block

    def record_stream(self, block: Block, stream: int) -> None:
        """Note that another stream uses the block: once freed, it waits for that stream."""
        if stream != block.stream:
            block.waiting = (block.waiting or set()) | {stream}

    def free(self, block: Block) -> None:
        """Free a block; it can be used again at once unless another stream used it."""
        if block.waiting:
            self.free_later(block)
        else:
            stats = self.stats
            stats.allocated_bytes -= block.size
            stats.requested_bytes -= block.requested
            self._complete_free(block)

    def free_later(self, block: Block) -> None:
        """The tensor is gone, but a stream still uses the block: no longer allocated, still active."""
        block.status = BlockStatus.PENDING
        stats = self.stats
        stats.allocated_bytes -= block.size
        stats.requested_bytes -= block.requested
        self._waiting[block] = None

    def complete_free(self, block: Block) -> None:
        """No stream uses the block any more: it joins its free neighbours and can be used again."""
        if block in self._waiting:  # else the allocator waited for it itself, to make room
            del self._waiting[block]
            block.waiting = None
            self._complete_free(block)

    def hold(self, blocks: Collection[Block]) -> None:
        """Count the blocks that were active before anything was asked of this allocator."""
        stats = self.stats
        stats.active_bytes += sum([block.size for block in blocks])
        allocated = [block for block in blocks if block.status is _ALLOCATED]
        stats.allocated_bytes += sum([block.size for block in allocated])
        stats.requested_bytes += sum([block.requested for block in allocated])
        self._waiting |= dict.fromkeys(block for block in blocks if block.status is not _ALLOCATED)

    def events_done(self) -> None:
        """All streams have caught up: blocks that waited for them are free."""
        for block in list(self._waiting):
            self.complete_free(block)

    def empty_cache(self) -> None:
        """Give back every segment that holds nothing, and every mapped page that holds nothing."""
        self.events_done()
        for pool in (self.large, self.small):
            self._release(pool)

    @property
    def inactive_split_bytes(self) -> int:
        """Bytes of free blocks that share their segment, so that it cannot be given back; expandable segments, which can, do not count."""
        stats = self.stats
        return stats.reserved_bytes - stats.active_bytes - self.small.releasable_bytes - self.large.releasable_bytes

    def blocks(self, segment_address: int) -> list[Block]:
        """Return the blocks of a segment by address, unmapped ranges included."""
        block: Block | None = self.segments[segment_address]
        found = []
        while block is not None:
            found.append(block)
            block = block.next
        return found

    def _complete_free(self, block: Block) -> None:
        self.stats.active_bytes -= block.size
        block.status = _FREE
        pool, before, after = block.segment.pool, block.prev, block.next
        if (after is not None and after.status is _FREE) or (before is not None and before.status is _FREE):
            block = pool.join(block)
        block.segment.free.put(block)

    def _fit(self, pool: Pool, size: int, stream: int) -> Block | None:
        """Return the free block that the rules choose, taken from its list; None where they refuse those that are large enough."""
        if self._collects:
            pool.lookups += 1
        free = pool.free.get(stream)
        if free is None:
            return None
        fitting, limit = free.blocks(size), self.config.max_split_size_bytes
        if self.config.expandable_segments:
            block = expandable.best_fit(fitting)
        else:
            block = next((found for found in fitting if not found.segment.expandable), None)
        if block is None or (limit is not None and self._oversize(block, size, limit)):
            return None
        free.take(block)
        return block

    def _oversize(self, block: Block, size: int, limit: int) -> bool:
        """Return whether a block that may not be split is too large for the request."""
        if size < limit:
            return block.size >= limit
        return block.size >= size + self.config.max_non_split_rounding_bytes

    def _grow(self, pool: Pool, size: int, stream: int) -> Block | None:
        """Get memory from the driver, giving back what is cached where that is needed."""
        if self._collects:
            self._collect_garbage()
        block = self._from_driver(pool, size, stream)
        if block is None and self.config.max_split_size_bytes is not None and self._release_oversize(pool, size, stream):
            block = self._from_driver(pool, size, stream)
        if block is None:
            self.empty_cache()
            self.stats.num_alloc_retries += 1
            block = self._from_driver(pool, size, stream)
        return block

    def _from_driver(self, pool: Pool, size: int, stream: int) -> Block | None:
        num_bytes = segment_bytes(size, self.config)
        if self.allowed_bytes is not None and self.stats.reserved_bytes + num_bytes > self.allowed_bytes:
            return None
        if self.config.expandable_segments:
            return expandable.allocate(self, pool, size, stream)
        if not self.driver.reserve(num_bytes):
            return None
        segment = Segment(pool, stream, self.driver.address_for(num_bytes), num_bytes)
        block = self.segments[segment.address] = Block(segment, segment.address, num_bytes)
        self.grew("segment_alloc", segment.address, num_bytes, stream)
        return block

    def grew(self, action: str, address: int, num_bytes: int, stream: int) -> None:
        """Count memory that came from the driver."""
        stats = self.stats
        stats.reserved_bytes += num_bytes
        stats.peak_reserved_bytes = max(stats.peak_reserved_bytes, stats.reserved_bytes)
        stats.num_device_alloc += 1
        self.on_segment(action, address, num_bytes, stream)

    def shrank(self, action: str, address: int, num_bytes: int, stream: int) -> None:
        """Count memory that went back to the driver."""
        self.driver.give_back(num_bytes)
        self.stats.reserved_bytes -= num_bytes
        self.stats.num_device_free += 1
        self.on_segment(action, address, num_bytes, stream)

    def release_segment(self, block: Block) -> None:
        """Give back the segment that a free block fills."""
        block.segment.free.take(block)
        del self.segments[block.segment.address]
        self.shrank("segment_free", block.address, block.size, block.stream)

    def _release(self, pool: Pool) -> None:
        """Give back all that holds nothing: whole segments first, then pages of expandable ones."""
        pages = []
        for block in pool.free_blocks():
            if block.segment.expandable:
                pages.append(block)
            elif not block.is_split:
                self.release_segment(block)
        for block in pages:
            expandable.unmap(self, block)

    def _release_oversize(self, pool: Pool, size: int, stream: int) -> bool:
        """Give back cached blocks that may not be split: one that is large enough, else the largest until there is room."""
        limit = self.config.max_split_size_bytes or 0
        wanted = max(size, limit)
        free = pool.free.get(stream)
        if free is None:
            return False
        large_enough = next(free.blocks(wanted), None)
        if large_enough is not None and not large_enough.segment.expandable:
            self.release_segment(large_enough)
            return True
        released = 0
        smaller = [block for block in free.blocks(limit) if block.size < wanted]
        for block in reversed(smaller):
            if released >= wanted:
                break
            if not block.segment.expandable:
                released += block.size
                self.release_segment(block)
        return released >= wanted

    def _collect_garbage(self) -> None:
        """Give back unused large segments that were free for longest, once reserved memory passes the threshold."""
        assert self.allowed_bytes is not None
        target = self.stats.reserved_bytes - int(self.config.garbage_collection_threshold * self.allowed_bytes)
        if target <= 0:
            return
        now = self.large.lookups
        whole = [block for block in self.large.free_blocks() if not block.is_split and not block.segment.expandable]
        reclaimed = 0
        while reclaimed < target and whole:
            mean_age = sum(now - block.born for block in whole) / len(whole)
            old = [block for block in whole if now - block.born >= mean_age]
            for block in old:
                reclaimed += block.size
                self.release_segment(block)
            whole = [block for block in whole if now - block.born < mean_age]

    def _out_of_memory(self, pool: Pool, requested: int, size: int, stream: int) -> OutOfMemory:
        self.stats.num_ooms += 1
        free = pool.free.get(stream)
        return OutOfMemory(
            requested_bytes=requested,
            segment_bytes=segment_bytes(size, self.config),
            reserved_bytes=self.stats.reserved_bytes,
            allocated_bytes=self.stats.allocated_bytes,
            largest_free_bytes=max((block.size for block in free.blocks()), default=0) if free is not None else 0,
            capacity_bytes=self.driver.capacity_bytes if self.allowed_bytes is None else self.allowed_bytes,
        )


def _ignore(action: str, address: int, num_bytes: int, stream: int) -> None:
    """Do nothing."""

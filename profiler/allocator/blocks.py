"""Blocks, and the lists of free ones in which the allocator looks for the best fit."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.sizes import split_rule
from profiler.allocator.state import BlockStatus

_ALLOCATED, _FREE = BlockStatus.ALLOCATED, BlockStatus.INACTIVE


class Segment:
    """A range obtained from the driver; an expandable one is a range of addresses of which pages are mapped as needed.

    All its blocks are of one pool and one stream.
    """

    __slots__ = ("address", "bytes", "expandable", "free", "page_bytes", "pool", "stream")

    def __init__(self, pool: Pool, stream: int, address: int, num_bytes: int, *, expandable: bool = False, page_bytes: int = 0) -> None:
        self.pool, self.stream = pool, stream
        self.address, self.bytes, self.expandable, self.page_bytes = address, num_bytes, expandable, page_bytes
        self.free = pool.free_list(stream)
        """Where its free blocks are listed."""
        if expandable:
            pool.takes_best_fit = False


class Block:
    """A piece of a segment: allocated, free, waiting for another stream, or not mapped."""

    __slots__ = ("address", "born", "next", "prev", "requested", "segment", "size", "status", "waiting")

    def __init__(self, segment: Segment, address: int, size: int, status: BlockStatus | None = _FREE, requested: int = 0) -> None:
        self.segment = segment
        self.address = address
        self.size = size
        self.status = status
        """None where no page is mapped."""
        self.requested = requested
        self.waiting: set[int] | None = None
        """Other streams that used the block; None where none ever did."""
        self.prev: Block | None = None
        self.next: Block | None = None
        self.born = 0
        """The pool's look-up counter when the block last became free."""

    @property
    def pool(self) -> Pool:
        """Whether it is small or large."""
        return self.segment.pool

    @property
    def stream(self) -> int:
        """The stream that it was made for."""
        return self.segment.stream

    @property
    def is_split(self) -> bool:
        """Whether its segment holds other blocks too."""
        return self.prev is not None or self.next is not None

    @property
    def allocated(self) -> bool:
        """Whether somebody holds it."""
        return self.status is _ALLOCATED

    @property
    def mapped(self) -> bool:
        """Whether there is memory behind its addresses."""
        return self.status is not None

    @property
    def is_available(self) -> bool:
        """Whether nobody holds or waits for it."""
        return self.status is _FREE or self.status is None

    def absorb(self, after: Block) -> None:
        """Make the block behind this one a part of it."""
        self.size += after.size
        self.next = behind = after.next
        if behind is not None:
            behind.prev = self

    def cut(self, size: int) -> Block:
        """Cut the block in two and return the upper part, which belongs to no list yet; this one keeps ``size`` bytes."""
        rest = Block(self.segment, self.address + size, self.size - size, self.status)
        after = self.next
        rest.prev, rest.next = self, after
        if after is not None:
            after.prev = rest
        self.next, self.size = rest, size
        return rest


class FreeList:
    """The free blocks of one pool and stream, by size, then address.

    Programs ask for the same sizes again and again, so a size stays listed when its last block is taken, until a search passes over it.
    """

    __slots__ = ("_addresses", "_blocks", "_sizes", "pool")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._sizes: list[int] = []
        """In order."""
        self._addresses: dict[int, list[int]] = {}
        """By size, in order."""
        self._blocks: dict[int, Block] = {}
        """By address."""

    def put(self, block: Block) -> None:
        """Add a block."""
        size, address, pool = block.size, block.address, self.pool
        same = self._addresses.get(size)
        if same is None:
            self._addresses[size] = [address]
            insort(self._sizes, size)
        else:
            insort(same, address)
        self._blocks[address] = block
        block.born = pool.lookups
        if block.prev is block.next or block.segment.expandable:  # both None
            pool.releasable_bytes += size

    def take(self, block: Block) -> None:
        """Remove a block, before anything about it changes."""
        size, address = block.size, block.address
        same = self._addresses[size]
        del same[bisect_left(same, address)], self._blocks[address]
        if block.prev is block.next or block.segment.expandable:
            self.pool.releasable_bytes -= size

    def take_best(self, size: int) -> Block | None:
        """Remove the first block of at least this size and return it."""
        same = self._addresses.get(size) or self._next_size(bisect_left(self._sizes, size))
        if not same:
            return None
        block = self._blocks.pop(same.pop(0))
        if block.prev is block.next or block.segment.expandable:
            self.pool.releasable_bytes -= block.size
        return block

    def blocks(self, least_size: int = 0) -> Iterator[Block]:
        """Return the blocks of at least this size in order; none may be put or taken on the way."""
        place = bisect_left(self._sizes, least_size)
        while same := self._next_size(place):
            for address in same:
                yield self._blocks[address]
            place += 1

    def _next_size(self, place: int) -> list[int] | None:
        """Return the addresses of the first size from ``place`` on that has any, which stands there then; the others are forgotten."""
        sizes, addresses = self._sizes, self._addresses
        while place < len(sizes):
            same = addresses[sizes[place]]
            if same:
                return same
            del addresses[sizes.pop(place)]
        return None


class Pool:
    """Small or large blocks of all streams, under an allocator's settings."""

    __slots__ = ("free", "is_small", "least_rest_bytes", "lookups", "releasable_bytes", "split_below_bytes", "takes_best_fit", "unmapped")

    def __init__(self, config: AllocatorConfig, *, is_small: bool) -> None:
        self.is_small = is_small
        self.split_below_bytes, self.least_rest_bytes = split_rule(config, is_small=is_small)
        self.free: dict[int, FreeList] = {}
        """By stream."""
        self.unmapped: dict[int, list[Block]] = {}
        """Ranges of expandable segments that no page is mapped to, by address."""
        self.takes_best_fit = config.max_split_size_bytes is None and not config.garbage_collection_threshold
        """Whether the first free block that is large enough is always the one to take: nothing restricts it, no segment is expandable."""
        self.releasable_bytes = 0
        """Bytes of free blocks that fill their segment or lie in an expandable one. A free block's neighbours stay while it is free."""
        self.lookups = 0
        """Counted while garbage collection is on; the age of a free block is the look-ups since it became free."""

    def free_list(self, stream: int) -> FreeList:
        """Return the list of a stream's free blocks."""
        found = self.free.get(stream)
        if found is None:
            found = self.free[stream] = FreeList(self)
        return found

    def free_blocks(self) -> list[Block]:
        """Return all free blocks: streams in order, then by size and address."""
        return [block for _, free in sorted(self.free.items()) for block in free.blocks()]

    def put_unmapped(self, block: Block) -> None:
        """Add an unmapped range."""
        insort(self.unmapped.setdefault(block.stream, []), block, key=_address)

    def take_unmapped(self, block: Block) -> None:
        """Remove an unmapped range."""
        ranges = self.unmapped[block.stream]
        del ranges[bisect_left(ranges, block.address, key=_address)]

    def join(self, block: Block) -> Block:
        """Join the neighbours that are free, or not mapped, as the block is; return what it is a part of then. It is in no list."""
        status, before, after = block.status, block.prev, block.next
        if after is not None and after.status is status:
            self._take_neighbour(after)
            block.absorb(after)
        if before is not None and before.status is status:
            self._take_neighbour(before)
            before.absorb(block)
            return before
        return block

    def _take_neighbour(self, block: Block) -> None:
        self.take_unmapped(block) if block.status is None else block.segment.free.take(block)


def _address(block: Block) -> int:
    return block.address

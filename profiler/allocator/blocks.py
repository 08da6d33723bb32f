"""Blocks, and the lists of free ones in which the allocator looks for the best fit."""

from __future__ import annotations

from bisect import bisect_left, insort

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.sizes import split_rule

ADDRESS_BITS = 60
"""A free block's key is ``size << 60 | address``: one integer orders by size, then address."""


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


class Block:
    """A piece of a segment: allocated, free, waiting for another stream, or not mapped."""

    __slots__ = ("address", "allocated", "born", "key", "mapped", "next", "prev", "requested", "segment", "size", "waiting")

    def __init__(self, segment: Segment, address: int, size: int, *, mapped: bool = True) -> None:
        self.segment = segment
        self.address, self.size, self.requested = address, size, 0
        self.allocated, self.mapped = False, mapped
        self.waiting: set[int] | None = None
        """Streams that still use the block; None where no other stream ever did."""
        self.born = 0
        """The pool's look-up counter when the block last became free."""
        self.key = 0
        """Its place in the order of the list of free blocks that it is in, or was in last."""
        self.prev: Block | None = None
        self.next: Block | None = None

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
    def is_available(self) -> bool:
        """Whether nobody holds or waits for it."""
        return not self.allocated and not self.waiting

    def cut(self, size: int) -> Block:
        """Cut the block in two and return the upper part, which belongs to no list yet; this one keeps ``size`` bytes."""
        rest = Block(self.segment, self.address + size, self.size - size)
        rest.mapped, after = self.mapped, self.next
        rest.prev, rest.next = self, after
        if after is not None:
            after.prev = rest
        self.next, self.size = rest, size
        return rest


class FreeList:
    """The free blocks of one pool and stream, by size, then address."""

    __slots__ = ("blocks", "keys")

    def __init__(self) -> None:
        self.keys: list[int] = []
        """In order."""
        self.blocks: dict[int, Block] = {}
        """By key."""

    def at(self, place: int) -> Block:
        """Return the block at a place of the order."""
        return self.blocks[self.keys[place]]


class Pool:
    """Small or large blocks of all streams, under an allocator's settings."""

    __slots__ = ("free", "is_small", "least_rest_bytes", "lookups", "split_below_bytes", "split_bytes", "unmapped")

    def __init__(self, config: AllocatorConfig, *, is_small: bool) -> None:
        self.is_small = is_small
        self.split_below_bytes, self.least_rest_bytes = split_rule(config, is_small=is_small)
        self.free: dict[int, FreeList] = {}
        """By stream."""
        self.unmapped: dict[int, list[Block]] = {}
        """Ranges of expandable segments that no page is mapped to, by address."""
        self.split_bytes = 0
        """Bytes of free blocks that share a segment which is not expandable. A free block's neighbours stay while it is free."""
        self.lookups = 0
        """Counted while garbage collection is on; the age of a free block is the look-ups since it became free."""

    def free_list(self, stream: int) -> FreeList:
        """Return the list of a stream's free blocks."""
        found = self.free.get(stream)
        if found is None:
            found = self.free[stream] = FreeList()
        return found

    def put(self, block: Block) -> None:
        """Add a free block."""
        block.born = self.lookups
        block.key = key = block.size << ADDRESS_BITS | block.address
        segment = block.segment
        free = segment.free
        insort(free.keys, key)
        free.blocks[key] = block
        if (block.prev is not None or block.next is not None) and not segment.expandable:
            self.split_bytes += block.size

    def take(self, block: Block) -> None:
        """Remove a free block, before anything about it changes."""
        free = block.segment.free
        self.take_at(free, bisect_left(free.keys, block.key))

    def take_at(self, free: FreeList, place: int) -> None:
        """Remove the free block at a place of its list."""
        block = free.blocks.pop(free.keys.pop(place))
        if (block.prev is not None or block.next is not None) and not block.segment.expandable:
            self.split_bytes -= block.size

    def free_blocks(self) -> list[Block]:
        """Return all free blocks: streams in order, then by size and address."""
        return [free.blocks[key] for _, free in sorted(self.free.items()) for key in free.keys]

    def put_unmapped(self, block: Block) -> None:
        """Add an unmapped range."""
        insort(self.unmapped.setdefault(block.stream, []), block, key=_address)

    def take_unmapped(self, block: Block) -> None:
        """Remove an unmapped range."""
        ranges = self.unmapped[block.stream]
        del ranges[bisect_left(ranges, block.address, key=_address)]

    def join(self, block: Block) -> None:
        """Join to a block, which is in no list, the neighbours that are available and mapped or not as it is."""
        before, after = block.prev, block.next
        if before is not None and not before.allocated and not before.waiting and before.mapped == block.mapped:
            self.take(before) if before.mapped else self.take_unmapped(before)
            block.address = before.address
            block.size += before.size
            block.prev = before = before.prev
            if before is not None:
                before.next = block
        if after is not None and not after.allocated and not after.waiting and after.mapped == block.mapped:
            self.take(after) if after.mapped else self.take_unmapped(after)
            block.size += after.size
            block.next = after = after.next
            if after is not None:
                after.prev = block


def _address(block: Block) -> int:
    return block.address

"""Blocks, and the lists of free ones in which the allocator looks for the best fit."""

from __future__ import annotations

from bisect import bisect_left, insort

_ADDRESS_BITS = 60
"""A free block's key is ``size << 60 | address``: one integer orders by size, then address."""


class Segment:
    """A range obtained from the driver; an expandable one is a range of addresses of which pages are mapped as needed."""

    __slots__ = ("address", "bytes", "expandable", "page_bytes")

    def __init__(self, address: int, num_bytes: int, *, expandable: bool = False, page_bytes: int = 0) -> None:
        self.address, self.bytes, self.expandable, self.page_bytes = address, num_bytes, expandable, page_bytes


class Block:
    """A piece of a segment: allocated, free, waiting for another stream, or not mapped."""

    __slots__ = ("address", "allocated", "born", "mapped", "next", "pool", "prev", "requested", "segment", "size", "stream", "waiting")

    def __init__(self, segment: Segment, pool: Pool, stream: int, address: int, size: int, *, mapped: bool = True) -> None:
        self.segment, self.pool, self.stream = segment, pool, stream
        self.address, self.size, self.requested = address, size, 0
        self.allocated, self.mapped = False, mapped
        self.waiting: set[int] | None = None
        """Streams that still use the block; None where no other stream ever did."""
        self.born = 0
        """The pool's look-up counter when the block last became free."""
        self.prev: Block | None = None
        self.next: Block | None = None

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
        rest = Block(self.segment, self.pool, self.stream, self.address + size, self.size - size, mapped=self.mapped)
        rest.prev, rest.next = self, self.next
        if rest.next is not None:
            rest.next.prev = rest
        self.next, self.size = rest, size
        return rest


class FreeList:
    """The free blocks of one pool and stream, by size, then address."""

    __slots__ = ("_blocks", "_keys")

    def __init__(self) -> None:
        self._keys: list[int] = []
        self._blocks: dict[int, Block] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, block: Block) -> None:
        """Put a block in its place."""
        key = block.size << _ADDRESS_BITS | block.address
        insort(self._keys, key)
        self._blocks[key] = block

    def remove(self, block: Block) -> None:
        """Take a block out; its size and address are those it was put in with."""
        key = block.size << _ADDRESS_BITS | block.address
        del self._keys[bisect_left(self._keys, key)]
        del self._blocks[key]

    def place_of(self, size: int) -> int:
        """Return the place of the first block of at least ``size`` bytes, lowest address first; the length if there is none."""
        return bisect_left(self._keys, size << _ADDRESS_BITS)

    def at(self, place: int) -> Block:
        """Return the block at a place."""
        return self._blocks[self._keys[place]]

    def blocks(self) -> list[Block]:
        """Return all blocks in order."""
        return [self._blocks[key] for key in self._keys]


class Pool:
    """Small or large blocks of all streams."""

    __slots__ = ("free", "is_small", "lookups", "split_bytes", "unmapped")

    def __init__(self, *, is_small: bool) -> None:
        self.is_small = is_small
        self.free: dict[int, FreeList] = {}
        self.unmapped: dict[int, list[Block]] = {}
        """Ranges of expandable segments that no page is mapped to, by address."""
        self.split_bytes = 0
        """Bytes of free blocks that share a segment which is not expandable. A free block's neighbours stay while it is free."""
        self.lookups = 0
        """Counted while garbage collection is on; the age of a free block is the look-ups since it became free."""

    def put(self, block: Block) -> None:
        """Add a free block."""
        block.born = self.lookups
        free = self.free.get(block.stream)
        if free is None:
            free = self.free[block.stream] = FreeList()
        free.add(block)
        if (block.prev is not None or block.next is not None) and not block.segment.expandable:
            self.split_bytes += block.size

    def take(self, block: Block) -> None:
        """Remove a free block, before anything about it changes."""
        self.free[block.stream].remove(block)
        if (block.prev is not None or block.next is not None) and not block.segment.expandable:
            self.split_bytes -= block.size

    def free_blocks(self) -> list[Block]:
        """Return all free blocks: streams in order, then by size and address."""
        return [block for stream in sorted(self.free) for block in self.free[stream].blocks()]

    def put_unmapped(self, block: Block) -> None:
        """Add an unmapped range."""
        insort(self.unmapped.setdefault(block.stream, []), block, key=_address)

    def take_unmapped(self, block: Block) -> None:
        """Remove an unmapped range."""
        ranges = self.unmapped[block.stream]
        del ranges[bisect_left(ranges, block.address, key=_address)]

    def absorb(self, block: Block, neighbour: Block | None) -> int:
        """Join ``neighbour`` to ``block`` if it is available and in the same state; return the bytes it had."""
        if neighbour is None or neighbour.allocated or neighbour.waiting or neighbour.mapped != block.mapped:
            return 0
        self.take(neighbour) if neighbour.mapped else self.take_unmapped(neighbour)
        if block.prev is neighbour:
            block.address = neighbour.address
            block.prev = neighbour.prev
            if block.prev is not None:
                block.prev.next = block
        else:
            block.next = neighbour.next
            if block.next is not None:
                block.next.prev = block
        block.size += neighbour.size
        return neighbour.size


def _address(block: Block) -> int:
    return block.address

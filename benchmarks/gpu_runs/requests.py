"""What a simulated program asks of its GPU's allocator, so that it can be asked again with the weights loaded in another order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NamedTuple
from unittest.mock import patch

from profiler.allocator.allocator import CachingAllocator
from profiler.allocator.blocks import Block
from profiler.allocator.driver import Driver


class _Kind(IntEnum):
    MALLOC = 0
    FREE = 1
    EMPTY_CACHE = 2
    READ = 3
    START_PEAKS = 4


class _Ask(NamedTuple):
    kind: _Kind
    key: int = 0
    """The number of the block."""
    num_bytes: int = 0
    stream: int = 0
    name: str = ""
    """Of the quantity that is read."""
    counter: str = ""
    """Of `Stats`, which it is read from."""


class LoadStep(NamedTuple):
    """A step of a load: a weight begins to be brought to the GPU, or what was brought is taken into the model, quantized or not."""

    weight: int
    """Its place in the order of names."""
    is_taken: bool


class Requests:
    """The requests of a program, in parts: what comes before the weights, each weight, and what comes after them."""

    def __init__(self) -> None:
        self._parts: list[list[_Ask]] = [[]]
        self.weight_bytes: list[int] = []
        """What each weight is on its way, in the order of their names."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Write down what is asked of any allocator in this block."""
        keys: dict[Block, int] = {}
        malloc, free, empty_cache = CachingAllocator.malloc, CachingAllocator.free, CachingAllocator.empty_cache
        num_blocks = 0

        def malloc_heard(allocator: CachingAllocator, requested: int, stream: int = 0) -> Block:
            nonlocal num_blocks
            block = malloc(allocator, requested, stream)
            assert isinstance(block, Block), "a card without a limit never runs out of memory"
            keys[block] = num_blocks
            self._add(_Ask(_Kind.MALLOC, num_blocks, requested, stream))
            num_blocks += 1
            return block

        def free_heard(allocator: CachingAllocator, block: Block) -> None:
            self._add(_Ask(_Kind.FREE, keys.pop(block)))
            free(allocator, block)

        def empty_cache_heard(allocator: CachingAllocator) -> None:
            self._add(_Ask(_Kind.EMPTY_CACHE))
            empty_cache(allocator)

        with (
            patch.object(CachingAllocator, "malloc", malloc_heard),
            patch.object(CachingAllocator, "free", free_heard),
            patch.object(CachingAllocator, "empty_cache", empty_cache_heard),
        ):
            yield

    def begin_weight(self, num_bytes: int) -> None:
        """Say that the next request brings a weight to the GPU, and those after it take it into the model."""
        self.weight_bytes.append(num_bytes)
        self._parts.append([])

    def end_load(self) -> None:
        """Say that all weights are there."""
        self._parts.append([])

    def read(self, name: str, counter: str) -> None:
        """Say that a quantity is read from one of the allocator's `Stats`."""
        self._add(_Ask(_Kind.READ, name=name, counter=counter))

    def start_peaks(self) -> None:
        """Say that the peaks begin anew."""
        self._add(_Ask(_Kind.START_PEAKS))

    def play(self, load: Iterable[LoadStep] | None = None) -> dict[str, int]:
        """Ask an allocator for the same, and return the bytes that were read, by the names of the quantities.

        Args:
            load: the order in which weights are brought and taken; one after another if not given.
        """
        allocator = CachingAllocator(driver=Driver(descending=True))  # as a simulated GPU's
        live: dict[int, Block] = {}
        found: dict[str, int] = {}
        for kind, key, num_bytes, stream, name, counter in self._asked(load):
            if kind is _Kind.MALLOC:
                block = allocator.malloc(num_bytes, stream)
                assert isinstance(block, Block), "a card without a limit never runs out of memory"
                live[key] = block
            elif kind is _Kind.FREE:
                allocator.free(live.pop(key))
            elif kind is _Kind.EMPTY_CACHE:
                allocator.empty_cache()
            elif kind is _Kind.READ:
                found[name] = getattr(allocator.stats, counter)
            else:
                allocator.stats.start_peaks()
        return found

    def _asked(self, load: Iterable[LoadStep] | None) -> Iterator[_Ask]:
        if load is None:
            load = (LoadStep(weight, is_taken) for weight in range(len(self.weight_bytes)) for is_taken in (False, True))
        yield from self._parts[0]
        for step in load:
            part = self._parts[1 + step.weight]
            yield from part[1:] if step.is_taken else part[:1]
        for part in self._parts[1 + len(self.weight_bytes) :]:
            yield from part

    def _add(self, ask: _Ask) -> None:
        self._parts[-1].append(ask)

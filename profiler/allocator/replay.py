"""A trace, settings and a card -> peaks, segments, retries, and where memory runs out: what would have happened."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from profiler.allocator.allocator import CachingAllocator, OutOfMemory
from profiler.allocator.blocks import Block
from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.restore import restore, snapshot
from profiler.allocator.state import State
from profiler.allocator.stats import Stats
from profiler.allocator.trace import Op, Trace


@dataclass(frozen=True, slots=True)
class Fragmentation:
    """How reserved memory was used when it first was at its peak."""

    reserved_bytes: int
    allocated_bytes: int
    requested_bytes: int
    inactive_split_bytes: int

    @property
    def external(self) -> float:
        """Share of reserved memory that no live tensor's block held."""
        return 1 - self.allocated_bytes / self.reserved_bytes if self.reserved_bytes else 0.0

    @property
    def internal(self) -> float:
        """Share of allocated memory that rounding and slack took."""
        return 1 - self.requested_bytes / self.allocated_bytes if self.allocated_bytes else 0.0


@dataclass(frozen=True, eq=False)
class Series:
    """Bytes after each step of the program."""

    row: np.ndarray[Any, np.dtype[np.int64]]
    """Rows of the trace."""
    requested_bytes: np.ndarray[Any, np.dtype[np.int64]]
    allocated_bytes: np.ndarray[Any, np.dtype[np.int64]]
    active_bytes: np.ndarray[Any, np.dtype[np.int64]]
    reserved_bytes: np.ndarray[Any, np.dtype[np.int64]]
    inactive_split_bytes: np.ndarray[Any, np.dtype[np.int64]]


class SegmentEvent(NamedTuple):
    """What the allocator did with the driver."""

    row: int
    """Row of the trace whose step caused it."""
    action: str
    """``segment_alloc``, ``segment_free``, ``segment_map`` or ``segment_unmap``."""
    address: int
    bytes: int
    stream: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Where memory ran out."""

    row: int
    """Row of the trace; nothing after it was replayed."""
    key: int
    stream: int
    cause: OutOfMemory


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """What happened: `stats` hold the peaks."""

    config: AllocatorConfig
    capacity_bytes: int | None
    stats: Stats
    at_peak: Fragmentation
    peak_row: int
    """Row of the trace at which reserved memory first was at its peak; -1 where it was so at the start."""
    oom: Failure | None
    series: Series | None
    segment_events: tuple[SegmentEvent, ...]
    """In the order of time; empty unless the series was asked for."""
    allocator: CachingAllocator
    """As it was left."""
    live: dict[int, Block]
    """Blocks that were not freed, by key."""

    def segments(self) -> State:
        """Return the segments and blocks as they were left."""
        return snapshot(self.allocator)


def replay(
    trace: Trace,
    config: AllocatorConfig | None = None,
    driver: Driver | None = None,
    *,
    start: State = (),
    until_row: int | None = None,
    series: bool = False,
    take_retries: bool = False,
) -> Replay:
    """Replay what the program asked for; the allocator decides everything else.

    Args:
        trace: the program's requests.
        config: the settings to try; torch's defaults if not given.
        driver: the card; without a limit if not given. A driver serves one replay.
        start: what the allocator holds before: only for the settings under which it came to be. For others see `Trace.preceded_by`.
        until_row: stop before this row of the trace, to see the state at an instant.
        series: also return the bytes after each step, and what was done with the driver.
        take_retries: give back cached segments where the history did so to make room, although this card may have had room.

    A recorded out-of-memory error is tried: if the request passes here, it is freed at once; how long it would have lived is not known.
    """
    kept = _Kept() if series else None
    run = _Run(CachingAllocator(config, driver, kept.on_segment if kept else None), start, take_retries=take_retries)
    oom = run.play(trace.steps(until_row), kept)
    allocator = run.allocator
    return Replay(
        config=allocator.config,
        capacity_bytes=allocator.driver.capacity_bytes,
        stats=allocator.stats,
        at_peak=run.at_peak,
        peak_row=run.peak_row,
        oom=oom,
        series=None if kept is None else Series(*np.array(kept.levels, np.int64).reshape(-1, 6).T.copy()),
        segment_events=() if kept is None else tuple(kept.segment_events),
        allocator=allocator,
        live=run.live,
    )


class _Kept:
    """What is written down on the way: the bytes after each step, and what was done with the driver in it."""

    def __init__(self) -> None:
        self.levels = array("q")
        """Row, and the five columns of bytes of `Series`; one after the other, 48 bytes a step."""
        self.segment_events: list[SegmentEvent] = []
        self._calls: list[tuple[str, int, int, int]] = []

    def on_segment(self, action: str, address: int, num_bytes: int, stream: int) -> None:
        self._calls.append((action, address, num_bytes, stream))

    def end_step(self, row: int) -> None:
        """Say which row of the trace caused what was done since the last step."""
        if self._calls:
            self.segment_events += [SegmentEvent(row, *call) for call in self._calls]
            self._calls.clear()


class _Run:
    """One replay."""

    def __init__(self, allocator: CachingAllocator, start: State, *, take_retries: bool) -> None:
        self.allocator = allocator
        self.live = restore(allocator, start)
        self.peak_row = -1
        self.at_peak = self._fragmentation()
        self._take_retries = take_retries

    def play(self, steps: Iterator[tuple[int, int, int, int, int]], kept: _Kept | None) -> Failure | None:
        """Go through the steps until the end or until memory runs out."""
        failure = self._play(steps, kept)
        if kept is not None and failure is not None:
            kept.end_step(failure.row)
        return failure

    def _play(self, steps: Iterator[tuple[int, int, int, int, int]], kept: _Kept | None) -> Failure | None:
        allocator, live, stats = self.allocator, self.live, self.allocator.stats
        malloc, free, pop, op_alloc, op_free = allocator.malloc, allocator.free, live.pop, int(Op.ALLOC), int(Op.FREE)
        peak = stats.peak_reserved_bytes
        for op, key, num_bytes, stream, row in steps:
            if op == op_alloc:
                made = malloc(num_bytes, stream)
                if type(made) is OutOfMemory:
                    return Failure(row, key, stream, made)
                live[key] = made
                if stats.peak_reserved_bytes > peak:
                    peak, self.peak_row, self.at_peak = stats.peak_reserved_bytes, row, self._fragmentation()
            elif op == op_free:
                block = pop(key, None)
                if block is not None:
                    free(block)
            else:
                failure = self._rare(op, key, num_bytes, stream, row)
                if failure is not None:
                    return failure
            if kept is not None:
                kept.levels.extend((row, *self._bytes_now()))
                kept.end_step(row)
        return None

    def _rare(self, op: int, key: int, num_bytes: int, stream: int, row: int) -> Failure | None:
        allocator = self.allocator
        if op == Op.FREE_REQUESTED:
            if key in self.live and self.live[key].allocated:
                allocator.free_later(self.live[key])
        elif op == Op.FREE_COMPLETED:
            block = self.live.pop(key, None)
            if block is not None and block.allocated:  # a Recording without requests says only this
                allocator.free(block)
            elif block is not None:
                allocator.complete_free(block)
        elif op == Op.EMPTY_CACHE or (op == Op.RETRY and self._take_retries):
            allocator.empty_cache()
        elif op == Op.OOM and not self._take_retries:
            made = allocator.malloc(num_bytes, stream)
            if isinstance(made, OutOfMemory):
                return Failure(row, key, stream, made)
            allocator.free(made)
        return None

    def _bytes_now(self) -> tuple[int, int, int, int, int]:
        stats = self.allocator.stats
        return (stats.requested_bytes, stats.allocated_bytes, stats.active_bytes, stats.reserved_bytes, self.allocator.inactive_split_bytes)

    def _fragmentation(self) -> Fragmentation:
        stats = self.allocator.stats
        return Fragmentation(stats.reserved_bytes, stats.allocated_bytes, stats.requested_bytes, self.allocator.inactive_split_bytes)

"""Blocks of a lane -> where each lies on the y axis of the block view: its compacted address, or a place found by first fit.

A layout is computed once for a whole recording, so that zooming never moves a block.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import islice
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from profiler.analysis.columns import Array
from profiler.analysis.timeline import Timeline

LayoutName = Literal["address", "stacked"]

MAX_PACKED = 1_000_000
"""Blocks that first fit places at most: the largest by bytes times lifetime. Half a million take about half a second, once."""

_MAX_SCANNED_HOLES = 512
"""Holes that first fit looks into before it takes the top, so that no recording makes the packing slow."""

_UNPLACED = -1


@dataclass(frozen=True, eq=False)
class Layout:
    """Where blocks lie: ``bottom`` is int64 bytes, one a member of the timeline's lane; -1 where a block was not placed."""

    bottom: Array
    height_bytes: int


_layouts: WeakKeyDictionary[Timeline, dict[LayoutName, Layout]] = WeakKeyDictionary()


def has_addresses(timeline: Timeline) -> bool:
    """Return whether every block of the lane has an address, so that the address layout can be shown."""
    return bool((timeline.blocks.address[timeline.members] >= 0).all())


def layout_of(timeline: Timeline, name: LayoutName) -> Layout:
    """Return a timeline's layout; it is kept for as long as the timeline lives."""
    kept = _layouts.setdefault(timeline, {})
    if name not in kept:
        kept[name] = _by_address(timeline) if name == "address" else _stacked(timeline)
    return kept[name]


def _by_address(timeline: Timeline) -> Layout:
    """Return addresses with the ranges that no block ever used taken out; blocks without an address are not placed."""
    address = timeline.blocks.address[timeline.members]
    known = np.flatnonzero(address >= 0)
    bottom = np.full(len(address), _UNPLACED, np.int64)
    if not len(known):
        return Layout(bottom, 0)
    order = known[np.argsort(address[known], kind="stable")]
    starts = address[order]
    used_until = np.maximum.accumulate(starts + timeline.blocks.bytes[timeline.members[order]])
    holes = np.cumsum(np.maximum(starts - np.concatenate([[0], used_until[:-1]]), 0))
    bottom[order] = starts - holes
    return Layout(bottom, int(used_until[-1] - holes[-1]))


def _stacked(timeline: Timeline) -> Layout:
    """Return the places that first fit gives in order of events: what stays longest and came first lies lowest."""
    blocks, members = timeline.blocks, timeline.members
    births, deaths, sizes = blocks.birth_event[members], blocks.death_event[members], blocks.bytes[members]
    chosen = np.flatnonzero(sizes > 0)
    if len(chosen) > MAX_PACKED:
        weight = sizes[chosen] * (deaths[chosen] - births[chosen]).astype(float)
        chosen = np.sort(chosen[np.argpartition(-weight, MAX_PACKED)[:MAX_PACKED]])
    events = np.concatenate([births[chosen], deaths[chosen]])
    order = np.argsort(events, kind="stable")
    bottom = np.full(len(members), _UNPLACED, np.int64)
    bottom[chosen], height = _first_fit(order.tolist(), sizes[chosen].tolist())
    return Layout(bottom, height)


def _first_fit(order: list[int], sizes: list[int]) -> tuple[list[int], int]:
    """Return each block's place and the height of all.

    Args:
        order: births (block) and deaths (number of blocks + block) in order of time.
        sizes: each block's bytes, above 0.
    """
    num_blocks = len(sizes)
    bottom = [0] * num_blocks
    space = _Space()
    for index in order:
        if index < num_blocks:
            bottom[index] = space.take(sizes[index])
        else:
            space.give(bottom[index - num_blocks], sizes[index - num_blocks])
    return bottom, space.height


class _Space:
    """A range that grows at its top, and the holes in it, sorted and never touching."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._top = 0
        self.height = 0

    def take(self, size: int) -> int:
        """Return the lowest place where ``size`` bytes are free."""
        for place, (start, end) in enumerate(islice(zip(self._starts, self._ends, strict=True), _MAX_SCANNED_HOLES)):
            if end - start >= size:
                self._shrink(place, start + size)
                return start
        start, self._top = self._top, self._top + size
        self.height = max(self.height, self._top)
        return start

    def give(self, start: int, size: int) -> None:
        """Free a range and join it with the holes it touches."""
        end = start + size
        place = bisect_left(self._starts, start)
        if place < len(self._starts) and self._starts[place] == end:
            end = self._ends[place]
            del self._starts[place], self._ends[place]
        if place and self._ends[place - 1] == start:
            place -= 1
            start = self._starts[place]
            del self._starts[place], self._ends[place]
        if end == self._top:
            self._top = start
        else:
            self._starts.insert(place, start)
            self._ends.insert(place, end)

    def _shrink(self, place: int, start: int) -> None:
        if start == self._ends[place]:
            del self._starts[place], self._ends[place]
        else:
            self._starts[place] = start

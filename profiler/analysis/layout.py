"""Blocks of a lane -> where each lies on the y axis of the block view: its compacted address, or a place found by first fit.

A layout is computed once for a whole recording, so that zooming never moves a block. Of a long recording, the largest blocks are placed
among each other; the others share strips, one for each stretch of events, whose places are found with the large blocks. What lies in a
strip is packed when somebody looks closely enough to see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from profiler.analysis.columns import Array
from profiler.analysis.packing import UNPLACED, pack
from profiler.analysis.timeline import Timeline

LayoutName = Literal["address", "stacked"]

MAX_PACKED = 250_000
"""Blocks that are placed at once, the largest by bytes times lifetime: about a second. Up to as many again that outlive their stretch of
events are placed with them; what is smaller than these and outlives its stretch is not placed."""

STRIP_EVENTS = 65_536
"""Events whose small blocks share a strip."""

MAX_STRIPS = 4
"""Strips that one view packs: about half a second, once."""

_SPARE = 4
"""A strip is higher than its blocks' peak by one part in so many; blocks that first fit cannot get into it are not placed."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where blocks lie."""

    bottom: Array
    """int64 bytes, one a member of the timeline's lane; -1 where a block is not placed, or not yet."""
    height_bytes: int
    strips: tuple[Strip, ...] = ()

    def reach(self, first: int, last: int) -> None:
        """Place the small blocks of events ``first`` to ``last``, where these are few enough for them to be seen."""
        touched = [strip for strip in self.strips if strip.births[0] < last and first < strip.end]
        if len(touched) <= MAX_STRIPS:
            for strip in touched:
                self.bottom[strip.members] = strip.places


@dataclass(frozen=True, eq=False)
class Strip:
    """The small blocks of one stretch of events. Columns are one value a block, in order of birth."""

    members: Array
    """Places in the layout."""
    births: Array
    deaths: Array
    sizes: Array
    bottom: int
    height_bytes: int

    @property
    def end(self) -> int:
        """The event at which its last block has ended."""
        return int(self.deaths.max())

    @cached_property
    def places(self) -> Array:
        """Where each block lies in the layout; -1 where it found no place."""
        places, _ = pack(self.births, self.deaths, self.sizes, self.height_bytes)
        return np.where(places == UNPLACED, UNPLACED, self.bottom + places)


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
    bottom = np.full(len(address), UNPLACED, np.int64)
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
    large, small = _sorted_out(births, deaths, sizes)
    firsts = np.flatnonzero(np.diff(births[small] // STRIP_EVENTS, prepend=-1))
    groups = np.split(small, firsts[1:]) if len(small) else []
    heights = [
        peak + peak // _SPARE for peak in _peaks(births[small], deaths[small], sizes[small], births[small[firsts]], timeline.num_events)
    ]
    ends = [deaths[group].max() for group in groups]
    places, height = pack(
        np.concatenate([births[large], births[small[firsts]]]),
        np.concatenate([deaths[large], np.array(ends, np.int64)]),
        np.concatenate([sizes[large], np.array(heights, np.int64)]),
    )
    bottom = np.full(len(members), UNPLACED, np.int64)
    bottom[large] = places[: len(large)]
    strips = tuple(
        Strip(group, births[group], deaths[group], sizes[group], int(place), high)
        for group, place, high in zip(groups, places[len(large) :], heights, strict=True)
    )
    return Layout(bottom, height, strips)


def _sorted_out(births: Array, deaths: Array, sizes: Array) -> tuple[Array, Array]:
    """Return the blocks that are placed at once, and those that are placed in their strips; both in order of birth."""
    seen = np.flatnonzero(sizes > 0)
    if len(seen) <= MAX_PACKED:
        return seen, seen[:0]
    weight = sizes * (deaths - births).astype(float)
    outlives = births // STRIP_EVENTS != (deaths - 1) // STRIP_EVENTS
    is_large = np.zeros(len(sizes), bool)
    is_large[_heaviest(seen, weight)] = True
    small = seen[~is_large[seen]]
    is_large[_heaviest(small[outlives[small]], weight)] = True
    return np.flatnonzero(is_large), small[~outlives[small]]


def _heaviest(rows: Array, weight: Array) -> Array:
    return rows if len(rows) <= MAX_PACKED else rows[np.argpartition(-weight[rows], MAX_PACKED)[:MAX_PACKED]]


def _peaks(births: Array, deaths: Array, sizes: Array, firsts: Array, num_events: int) -> list[int]:
    """Return the most that small blocks hold at once in each stretch that begins at one of ``firsts``; none outlives its stretch."""
    if not len(firsts):
        return []
    change = np.zeros(num_events + 1, np.int64)
    change[births] += sizes
    np.subtract.at(change, deaths, sizes)
    return [int(peak) for peak in np.maximum.reduceat(np.cumsum(change), firsts)]

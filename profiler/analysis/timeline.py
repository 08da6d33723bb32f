"""Blocks -> allocated memory at every event of one lane, its peak, and its categories at chosen events.

Totals are exact integers at every event; nothing is sampled until `Timeline.pick_rows` chooses the events to draw, and that keeps the
peak. At every chosen event the categories sum to the total.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import numpy as np

from profiler.analysis.blocks import Blocks, Lane
from profiler.analysis.categories import CATEGORIES, PHASE_CODES, PHASES
from profiler.analysis.columns import Array
from profiler.analysis.intervals import Interval, read_intervals
from profiler.analysis.reduction import num_bins, pick_extremes
from profiler.recording import Category, Metadata, Phase, Recording

Axis = Literal["time", "event"]

MAX_POINTS = 2_000
"""Events that a chart shows at most; more cost the browser its smoothness."""


@dataclass(frozen=True)
class Instant:
    """The state right after one event."""

    event: int
    time_us: float
    step: int
    phase: Phase
    allocated_bytes: int


@dataclass(frozen=True, eq=False)
class Picked:
    """The events chosen for a chart, and how many there were."""

    rows: Array
    """Events in order; the window's first, last, highest and lowest ones are among them."""
    num_events: int
    """Events in the window."""

    @property
    def statement(self) -> str:
        """What was left out, such as ``showing 2,000 of 812,345 events, peak exact``."""
        if len(self.rows) == self.num_events:
            return f"showing all {self.num_events:,} events"
        return f"showing {len(self.rows):,} of {self.num_events:,} events, peak exact"


@dataclass(frozen=True, eq=False)
class Timeline:
    """Allocated bytes of one lane after every event of the recording."""

    metadata: Metadata
    blocks: Blocks
    lane: Lane
    members: Array
    """The places in `blocks` of this lane's blocks."""
    total: Array
    """int64, one value an event; allocated bytes right after it."""
    steps: tuple[Interval, ...]
    phases: tuple[Interval, ...]
    regions: tuple[Interval, ...]

    @classmethod
    def of(cls, recording: Recording, blocks: Blocks | None = None, lane: Lane | None = None) -> Self:
        """Return the timeline of one lane.

        Args:
            recording: what to read.
            blocks: its blocks, where they were read already.
            lane: which memory; by default the first GPU, or the host where no GPU holds blocks.
        """
        blocks = blocks or Blocks.of(recording)
        if lane is None:
            lane = next(iter(blocks.lanes()), Lane(-1, 0))
        members = np.flatnonzero((blocks.device == lane.device) & (blocks.rank == lane.rank))
        delta = np.zeros(blocks.num_events, np.int64)
        delta[blocks.birth_event[members]] = blocks.bytes[members]
        freed = members[blocks.death_event[members] < blocks.num_events]
        delta[blocks.death_event[freed]] = -blocks.bytes[freed]
        marks = {kind: read_intervals(recording.marks, kind, lane.rank) for kind in ("step", "phase", "region")}
        return cls(
            metadata=recording.metadata,
            blocks=blocks,
            lane=lane,
            members=members,
            total=np.cumsum(delta),
            steps=marks["step"],
            phases=marks["phase"],
            regions=marks["region"],
        )

    @property
    def num_events(self) -> int:
        """Events of the whole recording."""
        return len(self.total)

    @cached_property
    def counted_events(self) -> Array:
        """The events of the steps after the warm-up, which are those that count; all events where none is of such a step."""
        step = self.blocks.event_step
        counted = np.flatnonzero((step >= self.metadata.warmup_steps) & (step >= 0))
        return counted if len(counted) else np.arange(self.num_events)

    @cached_property
    def peak_event(self) -> int:
        """The first of `counted_events` at which allocated is highest; -1 without events."""
        return int(self.counted_events[np.argmax(self.total[self.counted_events])]) if self.num_events else -1

    @cached_property
    def peak_bytes(self) -> int:
        """Allocated bytes at `peak_event`; 0 without events."""
        return int(self.total[self.peak_event]) if self.num_events else 0

    @cached_property
    def phase_peak_events(self) -> dict[Phase, int]:
        """For each phase of `counted_events`, the first of its events at which allocated is highest."""
        phase = self.blocks.event_phase[self.counted_events]
        found = {}
        for name in PHASES:
            events = self.counted_events[phase == PHASE_CODES[name]]
            if len(events):
                found[name] = int(events[np.argmax(self.total[events])])
        return found

    def at(self, event: int) -> Instant:
        """Return the state right after ``event``; one out of range is moved to the nearest end.

        Raises:
            IndexError: the recording has no events.
        """
        if not self.num_events:
            raise IndexError("a recording without events has no instants")
        event = min(max(event, 0), self.num_events - 1)
        blocks = self.blocks
        return Instant(
            event, float(blocks.event_us[event]), int(blocks.event_step[event]), blocks.phase_of_event(event), int(self.total[event])
        )

    def nearest_event(self, time_us: float) -> int:
        """Return the last event at or before ``time_us``: the one whose state holds at that time; the first where none is."""
        return max(int(np.searchsorted(self.blocks.event_us, time_us, side="right")) - 1, 0)

    def alive(self, event: int) -> Array:
        """Return the places in `blocks` of the lane's blocks that are allocated right after ``event``."""
        born, dead = self.blocks.birth_event[self.members], self.blocks.death_event[self.members]
        return np.asarray(self.members[(born <= event) & (event < dead)])

    def categories_at(self, event: int) -> dict[Category, int]:
        """Return the bytes of each category that holds any, right after ``event``; they sum to the total."""
        alive = self.alive(event)
        sums = np.zeros(len(CATEGORIES), np.int64)
        np.add.at(sums, self.blocks.category[alive], self.blocks.bytes[alive])
        return {category: int(num) for category, num in zip(CATEGORIES, sums, strict=True) if num}

    def by_category(self, rows: Array) -> dict[Category, Array]:
        """Return the allocated bytes of each category at events ``rows``, for categories that hold any there.

        The sums are exact; that they add up to the total is asserted.
        """
        series = {category: levels[np.searchsorted(events, rows, side="right")] for category, (events, levels) in self._levels.items()}
        total = np.sum(list(series.values()), axis=0) if series else np.zeros(len(rows), np.int64)
        assert np.array_equal(total, self.total[rows]), "categories must sum to the allocated total"
        return {category: values for category, values in series.items() if values.any()}

    @cached_property
    def _levels(self) -> dict[Category, tuple[Array, Array]]:
        """For each category its events and its level after each; the level before the first, 0, comes first."""
        blocks, members = self.blocks, self.members
        change = np.diff(self.total, prepend=0)
        category = np.full(self.num_events + 1, -1, np.int8)  # of the one block that each event is about
        category[blocks.birth_event[members]] = category[blocks.death_event[members]] = blocks.category[members]
        levels = {}
        for code in np.unique(blocks.category[members]):
            events = np.flatnonzero(category[:-1] == code)
            levels[CATEGORIES[code]] = (events, np.concatenate([[0], np.cumsum(change[events])]))
        return levels

    def pick_rows(self, max_points: int = MAX_POINTS, start: int = 0, end: int | None = None, axis: Axis = "event") -> Picked:
        """Choose the events of ``[start, end)`` to draw: in each of equal bins the highest and the lowest total.

        Args:
            max_points: events to return at most, 8 or more.
            start: first event of the window.
            end: the event after its last; by default the end of the recording.
            axis: bins of equal numbers of events, or of equal time.
        """
        end = self.num_events if end is None else min(end, self.num_events)
        start = max(start, 0)
        num_events = max(end - start, 0)
        if num_events <= max_points:
            return Picked(np.arange(start, start + num_events), num_events)
        window = self.total[start:end]
        rows = pick_extremes(window, max_points, self._bin_edges(start, end, num_bins(max_points), axis))
        if start <= self.peak_event < end:
            rows = np.union1d(rows, [self.peak_event - start])
        return Picked(rows + start, num_events)

    def _bin_edges(self, start: int, end: int, num_bins: int, axis: Axis) -> Array:
        """Return the first row of each bin that holds any, counted from ``start``."""
        if axis == "event":
            return np.linspace(0, end - start, num_bins, endpoint=False).astype(np.int64)
        times = self.blocks.event_us[start:end]
        return np.unique(np.searchsorted(times, np.linspace(times[0], times[-1], num_bins, endpoint=False)))

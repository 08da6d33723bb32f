"""A recording -> what the allocator reserved over time: as recorded where segments were, else simulated by a replay of its requests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.replay import Failure, SegmentEvent, replay
from profiler.allocator.trace import Trace
from profiler.allocator.what_if import Trial
from profiler.analysis.blocks import BlockLookup, Lane
from profiler.analysis.columns import Array, read_names, read_numbers
from profiler.analysis.reduction import pick_extremes
from profiler.analysis.samples import Series
from profiler.analysis.segment_rows import GROWTH, lane_segments, signed_bytes
from profiler.analysis.timeline import MAX_POINTS, Timeline
from profiler.recording import Action, Clock, Provenance, Recording

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ReservedSeries:
    """What one lane's allocator held, step by step. Columns are one value a point, in the order of time."""

    provenance: Provenance
    """Simulated, or that of the recording whose segments were recorded."""
    setting: str
    """The settings it was simulated with, as text; empty for torch's default and for what was recorded."""
    event: Array
    """The event of the recording that the point follows; -1 before the first."""
    time_us: Array
    allocated_bytes: Array
    active_bytes: Array
    """Allocated, and freed but still used by a stream."""
    reserved_bytes: Array
    changes: pd.DataFrame
    """What was done with the driver: event, time_us, action, address, bytes, reserved_bytes (after it)."""
    trial: Trial | None = None
    """The peaks and counts of a simulated series."""
    failure_event: int | None = None
    """The event at which memory ran out."""
    num_left_out: int = 0
    """Points that `thinned` left out."""
    clock: Clock = Clock.MEASURED
    """What the times tell."""

    def __len__(self) -> int:
        return len(self.event)

    @property
    def num_points(self) -> int:
        """How many points there were; those that were left out count."""
        return len(self) + self.num_left_out

    @property
    def failure(self) -> Failure | None:
        """Where memory ran out; the series ends there."""
        return self.trial.oom if self.trial else None

    @cached_property
    def peak_row(self) -> int:
        """The first point at which reserved is highest; -1 where there is none."""
        return int(np.argmax(self.reserved_bytes)) if len(self) else -1

    @cached_property
    def fullest_row(self) -> int:
        """Of the points at which reserved is highest, the first with most allocated: the one worth looking at; -1 where there is none."""
        if not len(self):
            return -1
        at_peak = np.flatnonzero(self.reserved_bytes == self.peak_bytes)
        return int(at_peak[np.argmax(self.allocated_bytes[at_peak])])

    @property
    def fullest_event(self) -> int:
        """The event of `fullest_row`; 0 where there is none."""
        return max(int(self.event[self.fullest_row]), 0) if len(self) else 0

    @property
    def peak_bytes(self) -> int:
        """Reserved bytes at their peak."""
        return int(self.reserved_bytes[self.peak_row]) if len(self) else 0

    @cached_property
    def external(self) -> Array:
        """External fragmentation at each point: the share of reserved memory that no live tensor's block holds."""
        share = self.allocated_bytes / np.maximum(self.reserved_bytes, 1)
        return np.where(self.reserved_bytes > 0, 1 - share, 0.0)

    def row_of(self, event: int) -> int:
        """Return the point whose state holds right after ``event``; -1 where the series begins later."""
        row = int(np.searchsorted(self.event, event, side="left"))
        return row if row < len(self) and self.event[row] == event else row - 1

    def pick_rows(self, max_points: int = MAX_POINTS) -> Array:
        """Return the points to draw, the peaks of reserved and of allocated among them."""
        if len(self) <= max_points:
            return np.arange(len(self))
        half = max_points // 2
        return np.union1d(pick_extremes(self.reserved_bytes, half), pick_extremes(self.allocated_bytes, half))

    def thinned(self) -> ReservedSeries:
        """Return the series with only those points that a chart shows; its peaks are the same."""
        if len(self) <= MAX_POINTS:
            return self
        rows = np.union1d(self.pick_rows(MAX_POINTS - 2), [self.peak_row, self.fullest_row])
        columns = {name: getattr(self, name)[rows] for name in ("event", "time_us", "allocated_bytes", "active_bytes", "reserved_bytes")}
        return replace(self, **columns, num_left_out=self.num_left_out + len(self) - len(rows))

    def overlay(self, device: int) -> Series:
        """Return reserved as a series that can be laid over a timeline."""
        rows = self.pick_rows()
        columns = self.time_us[rows], self.reserved_bytes[rows]
        return Series(str(self.provenance), "reserved_bytes", device, *columns, self.num_points, self.event[rows])

    def table(self, rows: Array) -> pd.DataFrame:
        """Return points as rows: event, time_us, allocated_bytes, active_bytes, reserved_bytes, external_fragmentation_share."""
        import pandas as pd

        names = ("event", "time_us", "allocated_bytes", "active_bytes", "reserved_bytes")
        return pd.DataFrame({name: getattr(self, name)[rows] for name in names} | {"external_fragmentation_share": self.external[rows]})


def lane_trace(recording: Recording, lane: Lane) -> Trace:
    """Return what the program asked of one lane's allocator; of a CPU recording, what it would have asked of a GPU's.

    What is older than the recording is allocated first; what was cached before it is not known and left out.
    """
    return Trace.from_recording(recording, lane.device, lane.rank)


def recorded_reserved(recording: Recording, timeline: Timeline) -> ReservedSeries | None:
    """Return what was reserved as the recording says it; None where it says nothing of it.

    Where a segment and an event share an instant, the segment comes first.
    """
    import pandas as pd  # what only reads recordings does without

    segments = lane_segments(recording, timeline.lane)
    signed = signed_bytes(segments)
    if not signed.any():
        return None
    levels, times = np.cumsum(signed), read_numbers(segments["time_us"])
    event_us = timeline.blocks.event_us
    is_segment = np.zeros(len(times) + len(event_us), bool)
    is_segment[np.searchsorted(event_us, times, side="left") + np.arange(len(times))] = True
    num_segments = np.cumsum(is_segment)
    event = np.arange(len(is_segment)) - num_segments
    time_us = np.empty(len(is_segment))
    time_us[is_segment], time_us[~is_segment] = times, event_us
    allocated, active = (np.append(column, 0)[event] for column in (timeline.total, timeline.total + pending_bytes(recording, timeline)))
    changes = {
        "event": np.searchsorted(event_us, times, side="left") - 1,
        "time_us": times,
        "action": read_names(segments["action"]).texts(),
        "address": read_numbers(segments["address"], -1),
        "bytes": read_numbers(segments["bytes"]),
        "reserved_bytes": levels,
    }
    return ReservedSeries(
        provenance=recording.metadata.provenance,
        setting="",
        event=event,
        time_us=time_us,
        allocated_bytes=allocated,
        active_bytes=active,
        reserved_bytes=np.append(levels, 0)[num_segments - 1],
        changes=pd.DataFrame(changes),
        clock=recording.metadata.clock,
    )


def simulated_reserved(
    timeline: Timeline, trace: Trace, config: AllocatorConfig, setting: str = "", capacity_bytes: int | None = None
) -> ReservedSeries:
    """Return what an allocator with these settings would have reserved for the same requests.

    Args:
        timeline: the lane.
        trace: its requests, from `lane_trace`.
        config: the settings.
        setting: their text.
        capacity_bytes: what the allocator may reserve; None: without limit.
    """
    run = replay(trace, config, Driver(capacity_bytes), series=True)
    assert run.series is not None
    event_us = np.append(timeline.blocks.event_us, timeline.blocks.event_us[:1] if timeline.num_events else 0.0)
    sources = np.maximum.accumulate(trace.source_row) if len(trace) else trace.source_row
    event = sources[run.series.row]
    return ReservedSeries(
        provenance=Provenance.SIMULATED,
        setting=setting,
        event=event,
        time_us=event_us[event],
        allocated_bytes=run.series.allocated_bytes,
        active_bytes=run.series.active_bytes,
        reserved_bytes=run.series.reserved_bytes,
        changes=_changes(run.segment_events, sources, event_us),
        clock=timeline.metadata.clock,
        trial=Trial.of(setting, run),
        failure_event=None if run.oom is None else max(int(sources[run.oom.row]), 0),
    )


def pending_ends(recording: Recording, timeline: Timeline) -> Array:
    """Return for each of the lane's blocks the event at which it could be used again: its free was complete.

    It is the event of its death where no stream held it longer, and `num_events` where that never came.
    """
    blocks, num_events = timeline.blocks, timeline.num_events
    numbers = read_numbers(recording.events["block"], -1)
    is_completed = read_names(recording.events["action"]).mapped({Action.FREE_COMPLETED.value: 1}, 0)
    completed = np.flatnonzero(is_completed)
    place = BlockLookup(numbers[blocks.birth_event], blocks.birth_event).find(numbers[completed])
    ends = np.full(len(blocks), num_events)
    ends[place[place >= 0]] = completed[place >= 0]
    return np.asarray(np.where(blocks.death_event < num_events, ends, num_events)[timeline.members])


def pending_bytes(recording: Recording, timeline: Timeline) -> Array:
    """Return at each event the bytes that were freed and still used by a stream."""
    ends, deaths, sizes = pending_ends(recording, timeline), timeline.blocks.death_event, timeline.blocks.bytes
    change = np.zeros(timeline.num_events + 1, np.int64)
    np.add.at(change, deaths[timeline.members], sizes[timeline.members])
    np.subtract.at(change, ends, sizes[timeline.members])
    return np.asarray(np.cumsum(change)[: timeline.num_events])


def _changes(calls: tuple[SegmentEvent, ...], sources: Array, event_us: Array) -> pd.DataFrame:
    import pandas as pd  # what only reads recordings does without

    frame = pd.DataFrame(list(calls), columns=list(SegmentEvent._fields))
    events = sources[frame["row"].to_numpy(np.int64)] if len(frame) else np.empty(0, np.int64)
    sign = np.where(frame["action"].isin(GROWTH), 1, -1)
    levels = np.cumsum(frame["bytes"].to_numpy(np.int64) * sign)
    return pd.DataFrame(
        {
            "event": events,
            "time_us": event_us[events],
            "action": frame["action"],
            "address": frame["address"],
            "bytes": frame["bytes"],
            "reserved_bytes": levels,
        }
    )

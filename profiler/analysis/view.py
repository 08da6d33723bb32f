"""Blocks of a timeline -> the rectangles that the block view draws for one window.

A block is a rectangle from its birth to its end, as high as it is large. The largest by bytes times visible lifetime are drawn; the rest
are counted and summed, so that drawn and rest together are the allocated total at every event.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profiler.analysis.columns import Array
from profiler.analysis.layout import LayoutName, layout_of
from profiler.analysis.timeline import Axis, Timeline
from profiler.units import format_bytes

MAX_BLOCKS = 15_000
"""Rectangles in one view at most: 20 bytes each, 300 KB, which a browser draws within 50 ms."""


@dataclass(frozen=True, eq=False)
class BlockView:
    """The rectangles of one window. Columns are one value a drawn block."""

    axis: Axis
    layout: LayoutName
    start: float
    """The window's left end: an event, or microseconds."""
    end: float
    full_end: float
    """The recording's right end in the same unit; its left end is 0 or the first event's time."""
    full_start: float
    height_bytes: int
    """What the y axis spans over the whole recording."""
    rows: Array
    """Places in `Blocks`."""
    left: Array
    right: Array
    """float64, in the axis' unit."""
    bottom: Array
    """int64, bytes."""
    num_visible: int
    """Blocks in the window, drawn or not."""
    rest_peak_bytes: int
    """The most that blocks not drawn hold at once in the window."""

    @property
    def statement(self) -> str:
        """What was left out, such as ``drawing 15,000 of 483,112 blocks, the rest at most 1.20 MiB at once``."""
        if len(self.rows) == self.num_visible:
            return f"drawing all {self.num_visible:,} blocks"
        rest = format_bytes(self.rest_peak_bytes)
        return f"drawing {len(self.rows):,} of {self.num_visible:,} blocks, the rest at most {rest} at once"


def view_blocks(
    timeline: Timeline,
    start: float | None = None,
    end: float | None = None,
    *,
    axis: Axis = "event",
    layout: LayoutName = "stacked",
    max_blocks: int = MAX_BLOCKS,
) -> BlockView:
    """Return the rectangles of a window; None ends are the recording's, and others are moved into it.

    Args:
        timeline: the lane.
        start: left end in the axis' unit: events, or microseconds.
        end: right end.
        axis: what x counts.
        layout: y is the compacted address space, or blocks packed by first fit.
        max_blocks: rectangles to return at most.
    """
    full_start, full_end = _extent(timeline, axis)
    start, end = _window(start, end, full_start, full_end)
    placed = layout_of(timeline, layout)
    first, last = _event_window(timeline, axis, start, end)
    placed.reach(first, last)
    left, right = _lifetimes(timeline, axis)
    visible = np.flatnonzero((left < end) & (right > start))
    weight = timeline.blocks.bytes[timeline.members[visible]] * (np.minimum(right[visible], end) - np.maximum(left[visible], start))
    weight[placed.bottom[visible] < 0] = 0.0
    drawable = np.flatnonzero(weight > 0)
    if len(drawable) > max_blocks:
        drawable = drawable[np.argpartition(-weight[drawable], max_blocks)[:max_blocks]]
    drawn = np.sort(visible[drawable])
    is_rest = np.zeros(len(left), bool)
    is_rest[visible], is_rest[drawn] = True, False
    return BlockView(
        axis=axis,
        layout=layout,
        start=start,
        end=end,
        full_start=full_start,
        full_end=full_end,
        height_bytes=placed.height_bytes,
        rows=timeline.members[drawn],
        left=left[drawn],
        right=right[drawn],
        bottom=placed.bottom[drawn],
        num_visible=len(visible),
        rest_peak_bytes=_peak_of(timeline, timeline.members[is_rest], first, last),
    )


def _extent(timeline: Timeline, axis: Axis) -> tuple[float, float]:
    if axis == "event" or not timeline.num_events:
        return 0.0, float(timeline.num_events)
    times = timeline.blocks.event_us
    return float(times[0]), float(times[-1])


def _window(start: float | None, end: float | None, full_start: float, full_end: float) -> tuple[float, float]:
    """Return the window inside the recording; one that is empty or not a number becomes the whole recording."""
    low = full_start if start is None else min(max(start, full_start), full_end)
    high = full_end if end is None else min(max(end, full_start), full_end)
    return (low, high) if low < high else (full_start, full_end)


def _lifetimes(timeline: Timeline, axis: Axis) -> tuple[Array, Array]:
    blocks, members = timeline.blocks, timeline.members
    if axis == "event":
        return blocks.birth_event[members].astype(float), blocks.death_event[members].astype(float)
    return blocks.birth_us[members], blocks.death_us[members]


def _event_window(timeline: Timeline, axis: Axis, start: float, end: float) -> tuple[int, int]:
    """Return the first event whose state is in the window, and the one after the last."""
    if axis == "event":
        return int(start), int(np.ceil(end))
    times = timeline.blocks.event_us
    return max(int(np.searchsorted(times, start, side="right")) - 1, 0), int(np.searchsorted(times, end, side="right"))


def _peak_of(timeline: Timeline, rows: Array, first: int, last: int) -> int:
    """Return the most that blocks ``rows`` hold at once at events ``first`` to ``last``, the latter excluded."""
    if not len(rows) or last <= first:
        return 0
    blocks = timeline.blocks
    change = np.zeros(timeline.num_events + 1, np.int64)
    change[blocks.birth_event[rows]] += blocks.bytes[rows]
    np.subtract.at(change, blocks.death_event[rows], blocks.bytes[rows])
    return int(np.cumsum(change)[first:last].max())

"""Blocks of a timeline -> the rectangles that the block view draws for one window.

A block is a rectangle from its birth to its end, as high as it is large. The largest by bytes times visible lifetime are drawn; the rest
are counted and summed, so that drawn and rest together are the allocated total at every event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from profiler.analysis.columns import Array
from profiler.analysis.timeline import Axis, Timeline

Layout = Literal["address", "stacked"]

MAX_BLOCKS = 20_000


@dataclass(frozen=True, eq=False)
class BlockView:
    """The rectangles of one window. Columns are one value a drawn block."""

    axis: Axis
    layout: Layout
    start: float
    """The window's left end: an event, or microseconds."""
    end: float
    full_start: float
    """The recording's left end in the same unit."""
    full_end: float
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
        """What was left out."""
        raise NotImplementedError


def has_addresses(timeline: Timeline) -> bool:
    """Return whether every block of the lane has an address, so that the address layout can be shown."""
    return bool((timeline.blocks.address[timeline.members] >= 0).all())


def view_blocks(
    timeline: Timeline,
    start: float | None = None,
    end: float | None = None,
    *,
    axis: Axis = "event",
    layout: Layout = "stacked",
    max_blocks: int = MAX_BLOCKS,
) -> BlockView:
    """Return the rectangles of a window; None ends are the recording's.

    Args:
        timeline: the lane.
        start: left end in the axis' unit: events, or microseconds.
        end: right end.
        axis: what x counts.
        layout: y is the compacted address space, or blocks packed by first fit.
        max_blocks: rectangles to return at most.
    """
    raise NotImplementedError

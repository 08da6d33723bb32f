"""A timeline -> the stacked area chart by category, and the table beside it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from profiler.analysis.samples import Series
from profiler.analysis.timeline import Axis, Picked, Timeline
from profiler.figures.theme import ThemeName


def timeline_figure(
    timeline: Timeline,
    picked: Picked,
    *,
    axis: Axis = "time",
    theme: ThemeName = "light",
    overlays: Sequence[Series] = (),
    cursor: int | None = None,
) -> go.Figure:
    """Return allocated bytes by category over time or events, with steps, phases and the peak marked.

    The last trace is named ``Allocated``; its points are the rows of ``picked`` in order, so a click on point ``i`` means event
    ``picked.rows[i]``.

    Args:
        timeline: the lane.
        picked: the events to draw, from `Timeline.pick_rows`.
        axis: x in milliseconds since the recording began, or in events.
        theme: ``light`` or ``dark``.
        overlays: readings laid over the stack as lines.
        cursor: an event to mark.
    """
    raise NotImplementedError


def timeline_table(timeline: Timeline, picked: Picked) -> pd.DataFrame:
    """Return the drawn events: event, time_us, step, phase, allocated_bytes and one column of bytes a category (by label)."""
    raise NotImplementedError

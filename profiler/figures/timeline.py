"""A timeline -> the stacked area chart by category, and the table beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from profiler.analysis.categories import PHASES
from profiler.analysis.columns import Array
from profiler.analysis.samples import Series
from profiler.analysis.timeline import Axis, Picked, Timeline
from profiler.figures.axes import base_layout, byte_axis, byte_axis_layout, empty_figure, exact_numbers, float32, plain, time_axis
from profiler.figures.bands import add_bands
from profiler.figures.theme import PATTERNS, STACK_ORDER, Theme, ThemeName, theme_named
from profiler.recording import Category
from profiler.units import format_bytes

HEIGHT = 440
_DASHES = ("dash", "dot", "dashdot", "longdash")


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
    ``picked.rows[i]``. y is in bytes, exact; the ticks are in GiB.

    Args:
        timeline: the lane.
        picked: the events to draw, from `Timeline.pick_rows`.
        axis: x in milliseconds (seconds from 10 s on) since the recording began, or in events.
        theme: ``light`` or ``dark``.
        overlays: readings laid over the stack as lines.
        cursor: an event to mark.
    """
    colors = theme_named(theme)
    rows = picked.rows
    if not len(rows):
        return empty_figure(colors, HEIGHT, "This recording has no events.")
    scale = _Scale(timeline, axis)
    x = float32(scale.of_events(rows))
    figure = go.Figure(layout=base_layout(colors, height=HEIGHT, revision=f"{timeline.metadata.id} {timeline.lane} {axis}"))
    series = timeline.by_category(rows)
    for category in STACK_ORDER:
        if category in series:
            figure.add_trace(_area(category, x, series[category], colors))
    highest = max([int(timeline.total[rows].max()), *(float(line.values.max()) for line in overlays if len(line.values))])
    for place, line in enumerate(overlays):
        figure.add_trace(_overlay(line, scale, colors, place))
    figure.add_trace(_peak(timeline, rows, scale, colors))
    figure.add_trace(_allocated(timeline, rows, x, colors))
    y_axis = byte_axis(highest)
    figure.update_layout(hovermode="x unified", yaxis=byte_axis_layout(y_axis, f"Allocated, {timeline.metadata.provenance}"))
    figure.update_xaxes(title={"text": scale.title, "font": {"size": 13}}, range=[float(x[0]), max(float(x[-1]), float(x[0]) + 1e-3)])
    add_bands(figure, timeline, scale.of_times, (int(rows[0]), int(rows[-1])), colors)
    if cursor is not None:
        figure.add_vline(x=float(scale.of_events(np.array([cursor]))[0]), line={"color": colors.accent, "width": 1.5})
    return figure


def timeline_table(timeline: Timeline, picked: Picked) -> pd.DataFrame:
    """Return the drawn events: event, time_us, step, phase, allocated_bytes and one column of bytes a category (by label)."""
    rows, blocks = picked.rows, timeline.blocks
    phases = np.array([phase.value for phase in PHASES], dtype=object)
    columns = {
        "event": rows,
        "time_us": blocks.event_us[rows],
        "step": blocks.event_step[rows],
        "phase": phases[blocks.event_phase[rows]],
        "allocated_bytes": timeline.total[rows],
    }
    series = timeline.by_category(rows)
    return pd.DataFrame(columns | {category.label: series[category] for category in STACK_ORDER if category in series})


class _Scale:
    """Places on the x axis: of events, and of times."""

    def __init__(self, timeline: Timeline, axis: Axis) -> None:
        self._times = timeline.blocks.event_us
        self._by_time = axis == "time"
        title, self._factor = time_axis(float(self._times[-1] - self._times[0]), timeline.metadata.clock)
        self.title = title if self._by_time else "Event"

    def of_events(self, events: Array) -> Array:
        return np.asarray(self._times[events] / self._factor if self._by_time else events.astype(float))

    def of_times(self, times: Array) -> Array:
        return np.asarray(times / self._factor if self._by_time else np.searchsorted(self._times, times).astype(float))

    def of_readings(self, line: Series) -> Array:
        """Return where readings lie: among events, at the last one before or at the same time, whose state the reading saw; else at -1."""
        if self._by_time:
            return self.of_times(line.time_us)
        events = np.searchsorted(self._times, line.time_us, side="right") - 1 if line.event is None else line.event
        return np.asarray(events.astype(float))


def _area(category: Category, x: Array, values: Array, theme: Theme) -> go.Scatter:
    color, pattern = theme.colors[category], PATTERNS[category]
    hatch = {"shape": pattern, "bgcolor": color, "fgcolor": theme.background, "size": 7, "solidity": 0.18} if pattern else None
    return go.Scatter(
        name=category.label,
        x=x,
        y=exact_numbers(values),
        stackgroup="allocated",
        mode="lines",
        line={"shape": "hv", "width": 0, "color": color},
        fillcolor=color,
        fillpattern=hatch,
        hovertemplate="%{y:,.0f} B",
    )


def _overlay(line: Series, scale: _Scale, theme: Theme, place: int) -> go.Scatter:
    color = theme.overlays[place % len(theme.overlays)]
    return go.Scatter(
        name=plain(line.label),
        x=float32(scale.of_readings(line)),
        y=line.values.astype(np.float64),
        mode="lines",
        # Reserved holds until the next call to the driver; what was sampled moves between two readings.
        line={
            "width": 1.5,
            "color": color,
            "dash": _DASHES[place % len(_DASHES)],
            "shape": "hv" if line.metric == "reserved_bytes" else "linear",
        },
        hovertemplate="%{y:,.0f} B",
    )


def _peak(timeline: Timeline, rows: Array, scale: _Scale, theme: Theme) -> go.Scatter:
    shown = rows[0] <= timeline.peak_event <= rows[-1]
    events = np.array([timeline.peak_event] if shown else [], dtype=np.int64)
    return go.Scatter(
        name="Peak",
        x=scale.of_events(events),
        y=timeline.total[events].astype(np.float64),
        mode="markers+text",
        text=[f"peak {format_bytes(timeline.peak_bytes)}"] * len(events),
        textposition=_beside(timeline, rows),
        textfont={"color": theme.text, "size": 13},
        marker={"symbol": "diamond", "size": 9, "color": theme.text, "line": {"color": theme.background, "width": 1}},
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
        unselected={"marker": {"opacity": 1}, "textfont": {"color": theme.text}},
    )


def _beside(timeline: Timeline, rows: Array) -> str:
    """Return on which side of the peak its label has room."""
    return "middle right" if timeline.peak_event < (int(rows[0]) + int(rows[-1])) / 2 else "middle left"


def _allocated(timeline: Timeline, rows: Array, x: Array, theme: Theme) -> go.Scatter:
    """Return the total as an outline, which shows peaks thinner than a pixel, with points that cannot be seen but can be clicked."""
    blocks = timeline.blocks
    places = [f"step {step}, {PHASES[phase]}" for step, phase in zip(blocks.event_step[rows], blocks.event_phase[rows], strict=True)]
    return go.Scatter(
        name="Allocated",
        x=x,
        y=exact_numbers(timeline.total[rows]),
        mode="lines+markers",
        line={"shape": "hv", "width": 1, "color": theme.text},
        # Markers of 6 pixels: with larger ones plotly gives a click to another trace, which has no points to select. They are not seen,
        # so two of them are drawn: all are found by a click, and 2,000 would take as long to draw as the rest of the chart.
        marker={"size": 6, "opacity": 0, "color": theme.text, "maxdisplayed": 2},
        customdata=places,
        hovertemplate="%{y:,.0f} B, %{customdata}",
        showlegend=False,
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
    )

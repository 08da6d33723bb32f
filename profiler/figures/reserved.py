"""Reserved memory over time -> a chart of reserved over allocated, and the line of fragmentation that Timeline can show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from profiler.analysis.allocator_settings import label_of
from profiler.analysis.columns import Array
from profiler.analysis.reserved import ReservedSeries
from profiler.analysis.timeline import Axis, Timeline
from profiler.figures.axes import (
    add_card,
    base_layout,
    byte_axis,
    byte_axis_layout,
    empty_figure,
    exact_numbers,
    float32,
    is_drawn,
    plain,
    time_axis,
)
from profiler.figures.theme import Theme, ThemeName, theme_named
from profiler.units import format_bytes

HEIGHT = 340
_FRAGMENTATION = "External fragmentation (%)"


def reserved_figure(
    series: ReservedSeries,
    rows: Array,
    *,
    theme: ThemeName = "light",
    axis: Axis = "event",
    recorded: ReservedSeries | None = None,
    capacity_bytes: int | None = None,
    top_bytes: int = 0,
    cursor: int | None = None,
) -> go.Figure:
    """Return reserved as a line over allocated as an area; what lies between is cached or fragmented.

    The last trace is reserved; its points are ``rows`` in order, so a click on point ``i`` means event ``series.event[rows[i]]``.

    Args:
        series: one replay, or what was recorded.
        rows: its points to draw, from `ReservedSeries.pick_rows`.
        theme: ``light`` or ``dark``.
        axis: x in events, or in time since the recording began.
        recorded: what was recorded, laid over a simulated series.
        capacity_bytes: the card's line, drawn where it does not press the chart flat.
        top_bytes: the highest value of charts beside this one, so that they share the axis.
        cursor: an event to mark.
    """
    colors = theme_named(theme)
    if not len(rows):
        return empty_figure(colors, HEIGHT, "Nothing was asked of the allocator.")
    highest = max(series.peak_bytes, top_bytes, recorded.peak_bytes if recorded else 0)
    title, factor = _x_axis(series, axis)
    figure = go.Figure(layout=base_layout(colors, height=HEIGHT, revision=f"{label_of(series.setting)} {axis}"))
    figure.add_trace(_area(series, rows, _x(series, rows, axis, factor), colors))
    if recorded is not None:
        picked = recorded.pick_rows()
        name = f"Reserved as recorded, {recorded.provenance}"
        figure.add_trace(_line(recorded, picked, _x(recorded, picked, axis, factor), name, colors.overlays[2], "dash"))
    x = _x(series, rows, axis, factor)
    figure.add_trace(_mark(series, axis, factor, colors))
    figure.add_trace(_clickable(_line(series, rows, x, f"Reserved, {series.provenance}", colors.text, "solid")))
    figure.update_layout(
        hovermode="x unified",
        yaxis=byte_axis_layout(byte_axis(max(highest, capacity_bytes) if is_drawn(capacity_bytes, highest) else highest), "Memory"),
    )
    figure.update_xaxes(title={"text": title, "font": {"size": 13}}, range=_extent(x))
    if is_drawn(capacity_bytes, highest):
        add_card(figure, capacity_bytes, colors, along="y")
    if cursor is not None:
        row = max(series.row_of(cursor), 0)
        figure.add_vline(x=float(_x(series, np.array([row]), axis, factor)[0]), line={"color": colors.accent, "width": 1.5})
    return figure


def fragmentation_figure(series: Sequence[ReservedSeries], *, theme: ThemeName = "light", axis: Axis = "event") -> go.Figure:
    """Return external fragmentation of each series over time, in percent: reserved memory that no tensor holds."""
    colors = theme_named(theme)
    shown = [one for one in series if len(one)]
    if not shown:
        return empty_figure(colors, HEIGHT, "Nothing was asked of the allocator.")
    title, factor = _x_axis(shown[0], axis)
    figure = go.Figure(layout=base_layout(colors, height=HEIGHT, revision=f"fragmentation {axis}"))
    hues = (colors.accent, colors.text, *colors.overlays[1:])
    for place, one in enumerate(shown):
        rows = one.pick_rows()
        figure.add_trace(
            go.Scatter(
                name=f"{plain(label_of(one.setting)) if one.provenance == 'simulated' else 'as recorded'}, {one.provenance}",
                x=_x(one, rows, axis, factor),
                y=float32(100 * one.external[rows]),
                mode="lines",
                line={"shape": "hv", "width": 1.5, "color": hues[place % len(hues)], "dash": ("solid", "dash", "dot")[place % 3]},
                hovertemplate="%{y:.1f} %",
            )
        )
    figure.update_layout(
        hovermode="x unified", yaxis={"title": {"text": "External fragmentation (%)"}, "range": [0, 100], "fixedrange": True}
    )
    figure.update_xaxes(title={"text": title, "font": {"size": 13}})
    return figure


def add_fragmentation(figure: go.Figure, timeline: Timeline, series: ReservedSeries, *, theme: ThemeName, axis: Axis) -> None:
    """Lay the line of external fragmentation over the figure of a timeline, with an axis of its own at the right.

    It is put below the figure's last traces, which a click looks at.
    """
    colors = theme_named(theme)
    rows = series.pick_rows()
    event_us = timeline.blocks.event_us
    factor = 1.0 if axis == "event" else time_axis(float(event_us[-1] - event_us[0]), timeline.metadata.clock)[1]
    line = go.Scatter(
        name="External fragmentation",
        x=_x(series, rows, axis, factor),
        y=float32(100 * series.external[rows]),
        yaxis="y2",
        mode="lines",
        line={"shape": "hv", "width": 2, "color": colors.overlays[2], "dash": "dash"},
        hovertemplate="%{y:.1f} %",
    )
    kept = list(figure.data)
    figure.add_trace(line)
    figure.data = (figure.data[-1], *kept)
    figure.update_layout(
        yaxis2={
            "overlaying": "y",
            "side": "right",
            "range": [0, 100],
            "fixedrange": True,
            "showgrid": False,
            "automargin": True,
            "ticksuffix": " %",
            "tickfont": {"color": colors.muted},
        }
    )


def _x_axis(series: ReservedSeries, axis: Axis) -> tuple[str, float]:
    """Return the axis' title, and what a value is divided by."""
    if axis == "event":
        return "Event", 1.0
    return time_axis(float(series.time_us[-1] - series.time_us[0]), series.clock)


def _x(series: ReservedSeries, rows: Array, axis: Axis, factor: float) -> Array:
    return float32((series.event if axis == "event" else series.time_us)[rows] / factor)


def _extent(x: Array) -> list[float]:
    return [float(x[0]), max(float(x[-1]), float(x[0]) + 1e-3)]


def _area(series: ReservedSeries, rows: Array, x: Array, theme: Theme) -> go.Scatter:
    return go.Scatter(
        name="Allocated",
        x=x,
        y=exact_numbers(series.allocated_bytes[rows]),
        mode="lines",
        line={"shape": "hv", "width": 0, "color": theme.accent},
        fill="tozeroy",
        fillcolor=theme.accent,
        hovertemplate="%{y:,.0f} B",
    )


def _line(series: ReservedSeries, rows: Array, x: Array, name: str, color: str, dash: str) -> go.Scatter:
    return go.Scatter(
        name=name,
        x=x,
        y=exact_numbers(series.reserved_bytes[rows]),
        mode="lines",
        line={"shape": "hv", "width": 2, "color": color, "dash": dash},
        hovertemplate="%{y:,.0f} B",
    )


def _mark(series: ReservedSeries, axis: Axis, factor: float, theme: Theme) -> go.Scatter:
    """Return the mark of the peak, or of where memory ran out."""
    failed = series.failure is not None
    row = np.array([len(series) - 1 if failed else series.peak_row])
    x = _x(series, row, axis, factor)
    middle = float(series.event[0] + series.event[-1]) / 2
    text = "out of memory" if failed else f"peak {format_bytes(series.peak_bytes)}"
    return go.Scatter(
        name="Peak",
        x=x,
        y=series.reserved_bytes[row].astype(np.float64),
        mode="markers+text",
        text=[text],
        textposition=f"{'bottom' if failed else 'top'} {'right' if float(series.event[row[0]]) < middle else 'left'}",
        textfont={"color": theme.text, "size": 13},
        marker={"symbol": "x" if failed else "diamond", "size": 9, "color": theme.text, "line": {"color": theme.background, "width": 1}},
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )


def _clickable(line: go.Scatter) -> go.Scatter:
    """Give a line points that cannot be seen but can be clicked; two of them are drawn, all are found."""
    hidden = {"marker": {"opacity": 0}}
    return line.update(mode="lines+markers", marker={"size": 6, "opacity": 0, "maxdisplayed": 2}, selected=hidden, unselected=hidden)

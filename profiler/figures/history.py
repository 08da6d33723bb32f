"""Readings over time -> line charts: the memory of a running job, and the history that Monitor shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from profiler.analysis.columns import Array
from profiler.figures.axes import base_layout, byte_axis, byte_axis_layout, empty_figure, float32
from profiler.figures.theme import ThemeName, theme_named

LIVE_HEIGHT = 180
HISTORY_HEIGHT = 220
_MAX_POINTS = 1_000


def live_figure(live: Sequence[tuple[float, int, int | None]], *, theme: ThemeName = "light") -> go.Figure:
    """Return the memory of a running job.

    Args:
        live: (seconds, resident set bytes, allocated bytes or None) in order of time, as a run's status holds them.
        theme: ``light`` or ``dark``.
    """
    colors = theme_named(theme)
    table = live_table(live)
    if not len(table):
        return empty_figure(colors, LIVE_HEIGHT, "Waiting for the first reading.")
    figure = go.Figure(layout=base_layout(colors, height=LIVE_HEIGHT, revision="live"))
    lines = {"Resident set": ("rss_bytes", colors.muted, "dash"), "Allocated": ("allocated_bytes", colors.accent, "solid")}
    for name, (column, color, dash) in lines.items():
        if table[column].notna().any():
            figure.add_trace(_line(name, table["seconds"].to_numpy(), table[column].to_numpy(), color, dash, "%{y:,.0f} B"))
    highest = table[["rss_bytes", "allocated_bytes"]].max().max()
    figure.update_layout(hovermode="x unified", yaxis=byte_axis_layout(byte_axis(float(highest), 4), "Memory"))
    figure.update_xaxes(title={"text": "Time since the run began (s)", "font": {"size": 13}}, rangemode="tozero")
    return figure


def live_table(live: Sequence[tuple[float, int, int | None]]) -> pd.DataFrame:
    """Return seconds, rss_bytes, allocated_bytes."""
    return pd.DataFrame(list(live), columns=["seconds", "rss_bytes", "allocated_bytes"]).astype(float)


def history_figure(
    seconds: Sequence[float] | Array,
    series: Mapping[str, Sequence[float | None] | Array],
    *,
    unit: str,
    title: str,
    limit: float | None = None,
    theme: ThemeName = "light",
) -> go.Figure:
    """Return one line a series over the last minutes.

    Args:
        seconds: instants; the last one is now, and x counts back from it.
        series: name to values; None where there was no reading.
        unit: ``bytes`` (drawn in GiB or MiB) or a unit's text, such as ``%`` or ``W``.
        title: what the y axis shows.
        limit: a line that the values must stay under, in the same unit as the values.
        theme: ``light`` or ``dark``.
    """
    colors = theme_named(theme)
    values = {name: np.asarray(readings, np.float64)[-_MAX_POINTS:] for name, readings in series.items()}
    highest = max((float(np.nanmax(readings)) for readings in values.values() if not np.isnan(readings).all()), default=None)
    if highest is None:
        return empty_figure(colors, HISTORY_HEIGHT, "Waiting for the first reading.")
    highest = max(highest, limit or 0.0)
    template = "%{y:,.0f} B" if unit == "bytes" else f"%{{y:,.1f}} {unit}"
    instants = np.asarray(seconds, np.float64)[-_MAX_POINTS:]
    hues = (colors.accent, *colors.overlays)
    lines = [
        _line(name, instants - instants[-1], readings, hues[place % len(hues)], "solid" if place < len(hues) else "dot", template)
        for place, (name, readings) in enumerate(values.items())
    ]
    # Made in one piece and not validated, since it is made again every two seconds: plotly's checks take three times as long as the rest.
    layout = base_layout(colors, height=HISTORY_HEIGHT, revision=title)
    layout["hovermode"] = "x unified"
    layout["xaxis"] = layout["xaxis"] | {"title": {"text": "Seconds ago", "font": {"size": 13}}}
    layout["yaxis"] = layout["yaxis"] | _value_axis(unit, title, highest)
    if limit is not None:
        line = {"color": colors.text, "width": 1, "dash": "dash"}
        layout["shapes"] = [{"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "y0": limit, "y1": limit, "line": line}]
    return go.Figure({"data": lines, "layout": layout}, _validate=False)


def history_table(seconds: Sequence[float] | Array, series: Mapping[str, Sequence[float | None] | Array]) -> pd.DataFrame:
    """Return seconds and one column a series; the newest 1,000 readings."""
    columns = {"seconds": seconds} | dict(series)
    return pd.DataFrame({name: pd.Series(list(values), dtype=float) for name, values in columns.items()}).tail(_MAX_POINTS)


def _value_axis(unit: str, title: str, highest: float) -> dict[str, Any]:
    if unit == "bytes":
        return byte_axis_layout(byte_axis(highest, 4), title)
    return {"title": {"text": f"{title} ({unit})", "font": {"size": 13}}, "range": [0, max(highest * 1.06, 1.0)], "fixedrange": True}


def _line(name: str, x: Array, y: Array, color: str, dash: str, template: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": name,
        "x": float32(x),
        "y": y,
        "mode": "lines",
        "line": {"color": color, "width": 1.75, "dash": dash},
        "hovertemplate": template,
        "connectgaps": False,
    }

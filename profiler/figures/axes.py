"""Values -> axes that say their unit, and the layout that all figures share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np
import plotly.graph_objects as go

from profiler.analysis.columns import Array
from profiler.figures.theme import Theme
from profiler.recording import Clock
from profiler.units import GIB, KIB, MIB, format_bytes

_MAX_TEXT = 300
_HEADROOM = 1.08
_LIMIT_DRAWN = 3
_FONT = "Source Sans, Source Sans Pro, system-ui, sans-serif"


@dataclass(frozen=True)
class ByteAxis:
    """Round ticks for an axis whose values are bytes."""

    unit: str
    values: list[float]
    texts: list[str]
    top_bytes: float
    """Where the axis ends: a little above the highest value."""


def byte_axis(highest_bytes: float, num_ticks: int = 6) -> ByteAxis:
    """Return ticks at round numbers of GiB, MiB, KiB or B, from 0 to about ``highest_bytes``."""
    highest = max(float(highest_bytes), 1.0)
    unit, factor = next(((name, size) for name, size in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)) if highest >= size), ("B", 1))
    step = _round_step(highest / factor / num_ticks)
    count = math.ceil(highest * 1.02 / factor / step)
    values = [step * tick for tick in range(count + 1)]
    return ByteAxis(
        unit, [value * factor for value in values], [f"{value:g}" for value in values], max(highest * 1.06, values[-1] * factor)
    )


def _round_step(rough: float) -> float:
    """Return the smallest of 1, 2, 2.5 or 5 times a power of ten that is at least ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)


def time_axis(span_us: float, clock: Clock) -> tuple[str, float]:
    """Return the title of a time axis of this span, which says what its times are, and how many microseconds its unit has."""
    in_seconds = span_us >= 1e7
    unit, many, factor = ("s", "millions", 1e6) if in_seconds else ("ms", "thousands", 1e3)
    titles = {
        Clock.MEASURED: f"Time since the recording began ({unit})",
        Clock.ESTIMATED: f"Estimated time since the recording began ({unit})",
        Clock.ORDER: f"Order of what happened, not time ({many})",
    }
    return titles[clock], factor


def float32(values: Array) -> Array:
    """Return values as float32: half the bytes of a message, for what need not be exact."""
    return np.ascontiguousarray(values, dtype=np.float32)


def exact_numbers(values: Array) -> Array:
    """Return whole numbers, 0 or more, in the smallest type that the browser reads and that holds them exactly (to 2**53)."""
    small = not len(values) or int(values.max()) < 2**32
    return np.ascontiguousarray(values, dtype=np.uint32 if small else np.float64)


def plain(text: str) -> str:
    """Return text from a recording so that plotly shows it as it is: its labels may hold markup and links otherwise."""
    return text[:_MAX_TEXT].replace("&", "&amp;").replace("<", "&lt;")


def base_layout(theme: Theme, *, height: int, revision: str = "") -> dict[str, Any]:
    """Return the layout that all figures share; ``revision`` keeps zoom and hidden traces while it stays the same."""
    axis = {"gridcolor": theme.grid, "zeroline": False, "linecolor": theme.grid, "tickfont": {"color": theme.muted}}
    return {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "modebar": {"bgcolor": "rgba(0,0,0,0)"},
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 13, "color": theme.text},
        "hoverlabel": {"bgcolor": theme.background, "bordercolor": theme.grid, "font": {"color": theme.text}},
        "legend": {
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1.02,
            "xanchor": "left",
            "x": 0,
            "font": {"size": 12},
            "traceorder": "normal",
        },
        "colorway": [theme.accent, *theme.overlays],
        "xaxis": {**axis, "automargin": True},
        "yaxis": {**axis, "automargin": True},
        "uirevision": revision or "kept",
    }


def byte_axis_layout(axis: ByteAxis, title: str) -> dict[str, Any]:
    """Return the settings of an axis in bytes: titled with its unit, not zoomable, so that its ticks stay right."""
    return {
        "title": {"text": f"{title} ({axis.unit})", "font": {"size": 13}},
        "tickvals": axis.values,
        "ticktext": axis.texts,
        "range": [0, axis.top_bytes],
        "fixedrange": True,
    }


def is_drawn(limit_bytes: int | None, highest_bytes: float) -> TypeGuard[int]:
    """Return whether a limit is drawn: one far above all values would press a chart flat."""
    return limit_bytes is not None and limit_bytes <= _LIMIT_DRAWN * highest_bytes


def add_card(figure: go.Figure, capacity_bytes: int, theme: Theme, *, along: Literal["x", "y"], name: str = "card") -> None:
    """Draw a card's memory, or another limit, as a line across the axis ``along`` which bytes are drawn, once that axis has its range."""
    label = {"text": f"{name} {format_bytes(capacity_bytes)}", "font": {"size": 12, "color": theme.muted}}
    line = {"color": theme.muted, "width": 1.5, "dash": "dash"}
    if along == "y":
        figure.add_hline(y=capacity_bytes, line=line, annotation=label, annotation_position="top left")
        return
    is_right = capacity_bytes > figure.layout.xaxis.range[1] / 2
    figure.add_vline(x=capacity_bytes, line=line | {"color": theme.text, "width": 2})  # over bars, not beside a line
    figure.add_annotation(
        label | {"x": capacity_bytes, "y": 1, "yref": "paper", "yanchor": "bottom", "xanchor": "right" if is_right else "left"},
        showarrow=False,
    )


def empty_figure(theme: Theme, height: int, text: str) -> go.Figure:
    """Return a figure that says why there is nothing to draw."""
    figure = go.Figure(layout=base_layout(theme, height=height))
    figure.update_layout(xaxis_visible=False, yaxis_visible=False)
    figure.add_annotation(text=text, showarrow=False, font={"color": theme.muted})
    return figure

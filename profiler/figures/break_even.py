"""Sparse formats -> their bytes, and measured time, over the share of zeros, with the places where they begin to be smaller than dense."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from profiler.compression.products import FORMATS as TIMED
from profiler.compression.products import ProductTime, break_even_in_time, times_of
from profiler.compression.result import Result
from profiler.compression.sparse_formats import BLOCK_SIZES, FORMATS, Matrix, break_even
from profiler.figures.axes import base_layout, empty_figure
from profiler.figures.theme import Theme, ThemeName, theme_named
from profiler.spec import Toggle

HEIGHT = 440
_EMPTY_HEIGHT = 150
_SHARES = [step / 100 for step in range(101)]
_DASHES = ("solid", "dash")
_SYMBOLS = ("circle", "diamond")
_HIGHEST = 2.0
"""Where the axis of ratios ends: a format that is twice as large is not the question."""
_STORED_AS = {
    "store-coo": "coo",
    "store-csr": "csr-int32",
    "store-csr:index=int64": "csr-int64",
    "store-csr:index=int64,tight=false": "csr-as-torch-makes-it",
    "store-bsr": f"bsr-{BLOCK_SIZES[0]}",
    **{f"store-bsr:block={size}": f"bsr-{size}" for size in BLOCK_SIZES[1:]},
    "store-bitmask": "bitmask",
    "store-2-4": "2:4",
}
"""Techniques -> the formats that they store in."""


@dataclass(frozen=True)
class Stored:
    """A model that was measured in a sparse format."""

    format: str
    zero_share: float
    """Of the matrices that were stored so; of their blocks where whole blocks are left out."""
    held_ratio: float
    time_ratio: float


def stored(results: Sequence[Result]) -> list[Stored]:
    """Return what results say about sparse formats: those whose last technique stores in one of `FORMATS`."""
    found = []
    for result in results:
        name = _STORED_AS.get(str(result.experiment.stages[-1])) if result.experiment.stages else None
        counted = result.stages[-1].extra if result.stages else {}
        zeros = counted.get("zero_block_share", counted.get("zero_share"))
        if name is not None and zeros is not None and result.baseline_seconds:
            found.append(Stored(name, zeros, result.ratio("held_bytes"), result.seconds / result.baseline_seconds))
    return sorted(found, key=lambda one: (one.format, one.zero_share))


def store_toggle(format_name: str) -> Toggle:
    """Return the technique that stores in a format."""
    return Toggle.parse(next(text for text, name in _STORED_AS.items() if name == format_name))


def break_even_figure(measured: Sequence[Stored], *, rows: int, columns: int, itemsize: int = 4, theme: ThemeName = "light") -> go.Figure:
    """Return a line a format, its bytes as a share of the dense matrix's over the share of zeros, and measured models as points.

    Args:
        measured: whole models; what stays dense in them moves them nearer to 1, on the same side of it.
        rows: of the matrix whose bytes are computed.
        columns: of it.
        itemsize: bytes of a number.
        theme: ``light`` or ``dark``.
    """
    colors = theme_named(theme)
    figure = _ratios("Bytes, as a share of dense", colors)
    for name, format_ in FORMATS.items():
        sizes = [_ratio(name, share, rows, columns, itemsize) for share in _SHARES]
        text = f"{format_.label}: %{{y:.3f}} with %{{x:.0%}} zeros<extra></extra>"
        figure.add_scatter(x=_SHARES, y=sizes, name=format_.label, mode="lines", line=_line(name, colors), hovertemplate=text)
    for name in dict.fromkeys(one.format for one in measured):
        figure.add_trace(_measured(name, [one for one in measured if one.format == name], "held_ratio", colors))
    return figure


def break_even_time_figure(times: Sequence[ProductTime], measured: Sequence[Stored] = (), *, theme: ThemeName = "light") -> go.Figure:
    """Return a line a format through the times of products, as shares of the dense one's over the share of zeros.

    Args:
        times: of products with one matrix.
        measured: whole models, as points.
        theme: ``light`` or ``dark``.
    """
    colors = theme_named(theme)
    if not times and not measured:
        return empty_figure(colors, _EMPTY_HEIGHT, "No product with a matrix of this shape was measured yet.")
    figure = _ratios("Processor time, as a share of dense", colors)
    for name in TIMED if times else ():
        rows = times_of(times, name)
        label = FORMATS[name].label
        figure.add_scatter(
            x=[row.zeros for row in rows],
            y=[row.ratio for row in rows],
            name=label,
            mode="lines+markers",
            line=_line(name, colors),
            marker={"size": 5},
            hovertemplate=f"{label}: %{{y:.2f}} of dense with %{{x:.0%}} zeros<extra></extra>",
        )
    for name in dict.fromkeys(one.format for one in measured):
        figure.add_trace(_measured(name, [one for one in measured if one.format == name], "time_ratio", colors))
    ticks = [tick for power in range(-3, 4) for tick in (10.0**power, 2 * 10.0**power, 5 * 10.0**power)]
    figure.update_yaxes(type="log", range=None, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    figure.update_annotations(y=math.log10(1))  # on such an axis a line is placed by its value, words by its logarithm
    return figure


def break_even_table(rows: int, columns: int, itemsize: int = 4, times: Sequence[ProductTime] = ()) -> pd.DataFrame:
    """Return one row a format.

    Columns: format, smaller_from_share of zeros (empty: never), faster_from_share (measured; empty: at none that was measured), formula,
    bytes at 50, 70 and 90 % zeros, runs.

    Args:
        rows: of the matrix.
        columns: of it.
        itemsize: bytes of a number.
        times: of products with it, where they were measured.
    """
    table = []
    for name, format_ in FORMATS.items():
        row: dict[str, Any] = {"format": format_.label, "smaller_from_share": break_even(format_, rows, columns, itemsize)}
        if times:
            row["faster_from_share"] = break_even_in_time(times, name)
        row["formula"] = format_.formula
        row |= {f"at {zeros:.0%} zeros": round(_ratio(name, zeros, rows, columns, itemsize), 3) for zeros in (0.5, 0.7, 0.9)}
        table.append(row | {"runs": format_.runs})
    return pd.DataFrame(table)


def _ratio(name: str, zeros: float, rows: int, columns: int, itemsize: int) -> float:
    matrix = Matrix(rows=rows, columns=columns, nonzeros=round((1 - zeros) * rows * columns), itemsize=itemsize)
    return FORMATS[name].num_bytes(matrix) / matrix.dense_bytes


def _ratios(title: str, theme: Theme) -> go.Figure:
    """Return an empty figure of ratios over the share of zeros, with the line that dense is."""
    figure = go.Figure(layout=base_layout(theme, height=HEIGHT))
    figure.update_xaxes(title={"text": "Zeros in the matrices", "font": {"size": 13}}, tickformat=".0%", range=[0, 1])
    figure.update_yaxes(title={"text": title, "font": {"size": 13}}, range=[0, _HIGHEST])
    figure.update_layout(legend={"yref": "container", "y": 0.01, "yanchor": "bottom"})
    label = {"text": "dense", "font": {"size": 12, "color": theme.muted}}
    figure.add_hline(y=1, line={"color": theme.muted, "width": 1.5, "dash": "dot"}, annotation=label, annotation_position="top left")
    return figure


def _measured(name: str, points: Sequence[Stored], attribute: str, theme: Theme) -> go.Scatter:
    line, symbol = _line(name, theme), _SYMBOLS[_style(name, theme)]
    return go.Scatter(
        name=f"{FORMATS[name].label}, measured",
        x=[one.zero_share for one in points],
        y=[getattr(one, attribute) for one in points],
        mode="markers",
        showlegend=False,  # the line of the format has the same colour, and its name already
        marker={"size": 9, "symbol": symbol, "color": line["color"], "line": {"color": theme.background, "width": 1}},
        hovertemplate=f"{FORMATS[name].label}, measured: %{{y:.3f}} with %{{x:.0%}} zeros<extra></extra>",
    )


def _line(name: str, theme: Theme) -> dict[str, str | float]:
    colors = _colors(theme)
    return {"color": colors[list(FORMATS).index(name) % len(colors)], "dash": _DASHES[_style(name, theme)], "width": 2}


def _style(name: str, theme: Theme) -> int:
    """Return which dash and symbol a format has: the second where the colours begin anew."""
    return list(FORMATS).index(name) // len(_colors(theme))


def _colors(theme: Theme) -> tuple[str, ...]:
    return (theme.accent, *theme.overlays)

"""Names of horizontal bars -> the layout that they share: each name above its bar, which stays readable in a narrow window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from profiler.figures.axes import add_card, base_layout, byte_axis, byte_axis_layout, is_drawn, plain
from profiler.figures.theme import Theme
from profiler.units import format_bytes

BAR_WIDTH = 0.5
"""Of a row's height; the name has the rest."""
_ROW_HEIGHT = 58
_FIXED_HEIGHT = 130


def rows_figure(
    names: Sequence[str], *, highest_bytes: int, title: str, budget_bytes: int | None, theme: Theme, bottom_px: int = 0
) -> go.Figure:
    """Return a figure without bars for so many rows, the first on top; row ``i`` lies at y = ``-i``.

    Args:
        names: what stands above each bar.
        highest_bytes: the largest value that will be drawn.
        title: of the axis; its unit is added.
        budget_bytes: a limit, drawn as a line by `add_budget`; the axis reaches it where it `is_drawn`.
        theme: the colours.
        bottom_px: room below, such as for a legend.
    """
    figure = go.Figure(layout=base_layout(theme, height=_FIXED_HEIGHT + _ROW_HEIGHT * len(names) + bottom_px))
    axis = byte_axis(max(highest_bytes, budget_bytes) if is_drawn(budget_bytes, highest_bytes) else highest_bytes)
    figure.update_layout(xaxis=byte_axis_layout(axis, title), barmode="stack", showlegend=False, margin_t=30)
    figure.update_yaxes(visible=False, fixedrange=True, range=[0.45 - len(names), 0.75])
    for row, name in enumerate(names):
        figure.add_annotation(row_label(plain(name), row, theme))
    return figure


def row_label(text: str, row: int, theme: Theme) -> dict[str, Any]:
    """Return the annotation that stands above the bar of a row."""
    place = {"x": 0, "xref": "paper", "xanchor": "left", "y": BAR_WIDTH / 2 - row, "yanchor": "bottom", "showarrow": False}
    return place | {"text": text, "align": "left", "bgcolor": theme.background, "borderpad": 1, "font": {"size": 13, "color": theme.text}}


def add_budget(figure: go.Figure, budget_bytes: int | None, theme: Theme) -> None:
    """Draw the line that runs have to stay under, over the bars, where the axis reaches it."""
    if budget_bytes is not None and budget_bytes <= figure.layout.xaxis.range[1]:
        add_card(figure, budget_bytes, theme, along="x", name="budget")


def sized(name: str, num_bytes: int) -> str:
    """Return a row's name with its size."""
    return f"{name}: {format_bytes(num_bytes)}"

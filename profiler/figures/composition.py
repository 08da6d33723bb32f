"""Bytes by category -> one horizontal stacked bar, and the table beside it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from profiler.figures.axes import add_card, base_layout, byte_axis, byte_axis_layout, empty_figure
from profiler.figures.theme import PATTERNS, STACK_ORDER, Theme, ThemeName, ink_on, theme_named
from profiler.recording import Category
from profiler.units import exact_bytes, format_bytes

HEIGHT = 150
_LABEL_SHARE = 0.08


def composition_figure(
    categories: dict[Category, int], *, theme: ThemeName = "light", title: str = "Allocated", capacity_bytes: int | None = None
) -> go.Figure:
    """Return what an instant's allocated memory is made of, as one bar; parts over 8 % of its width carry their label.

    Args:
        categories: bytes by category, as `Timeline.categories_at` returns them.
        theme: ``light`` or ``dark``.
        title: what the axis shows; its unit is added.
        capacity_bytes: a card's memory, drawn as a line.
    """
    colors = theme_named(theme)
    total = sum(categories.values())
    end = max(total, capacity_bytes or 0)
    if not total:
        return empty_figure(colors, HEIGHT, "Nothing is allocated at this instant.")
    figure = go.Figure(layout=base_layout(colors, height=HEIGHT))
    for category in STACK_ORDER:
        if category in categories:
            figure.add_trace(_part(category, categories[category], total, end, colors))
    labels = {"minsize": 10, "mode": "hide"}  # one that does not fit is hidden instead of lying over the next
    layout = {"barmode": "stack", "uniformtext": labels, "showlegend": False, "bargap": 0}
    figure.update_layout(layout, xaxis=byte_axis_layout(byte_axis(end), title))
    figure.update_xaxes(range=[0, end * (1 if capacity_bytes is None else 1.01)])
    figure.update_yaxes(visible=False, fixedrange=True)
    if capacity_bytes is not None:
        figure.update_layout(margin_t=26)
        add_card(figure, capacity_bytes, colors, along="x")
    return figure


def composition_table(categories: dict[Category, int]) -> pd.DataFrame:
    """Return category (label), bytes, share (0 to 1) and definition, in stack order."""
    total = max(sum(categories.values()), 1)
    rows = [(c.label, categories[c], categories[c] / total, c.value) for c in STACK_ORDER if c in categories]
    return pd.DataFrame(rows, columns=["category", "bytes", "share", "definition"])


def category_marker(category: Category, theme: Theme) -> dict[str, Any]:
    """Return the look of a bar's part: the category's colour and pattern, with a gap to its neighbours."""
    color = theme.colors[category]
    return {
        "color": color,
        "line": {"color": theme.background, "width": 1},
        "pattern": {"shape": PATTERNS[category], "bgcolor": color, "fgcolor": theme.background, "solidity": 0.18, "size": 7},
    }


def _part(category: Category, num_bytes: int, total: int, end: int, theme: Theme) -> go.Bar:
    color, share = theme.colors[category], num_bytes / total
    return go.Bar(
        name=category.label,
        x=[num_bytes],
        y=[""],
        orientation="h",
        marker=category_marker(category, theme),
        text=[f"{category.label.replace(' ', '<br>')}<br>{100 * share:.0f} %" if num_bytes >= _LABEL_SHARE * end else ""],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        constraintext="inside",
        textfont={"color": ink_on(color), "size": 12},
        hovertemplate=f"{category.label}: {format_bytes(num_bytes)} ({100 * share:.1f} %)<br>{exact_bytes(num_bytes)}<extra></extra>",
    )

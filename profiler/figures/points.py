"""Things that have bytes and a cost -> points, the best at the lower left; those that another one beats are open and grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from profiler.figures.axes import add_card, base_layout, byte_axis, byte_axis_layout, is_drawn, plain
from profiler.figures.theme import Theme

HEIGHT = 420
_CHARACTER_SHARE, _LINE_SHARE = 0.012, 0.07
"""About how much of a chart's width a character takes, and of its height a line; hovering tells names that have no room."""
_MAX_NAME = 36


@dataclass(frozen=True)
class Point:
    """One thing."""

    name: str
    num_bytes: int
    cost: float
    """Less is better."""
    is_dominated: bool
    """Another one is nowhere worse and somewhere better."""
    said: str
    """What hovering tells: lines between ``<br>``; no other markup."""


def points_figure(
    points: Sequence[Point],
    *,
    theme: Theme,
    bytes_title: str,
    cost_title: str,
    cost_from_zero: bool,
    what: str = "run",
    budget_bytes: int | None = None,
) -> go.Figure:
    """Return the points with the names for which there is room, of the best first.

    Args:
        points: at least one.
        theme: the colours.
        bytes_title: of the axis to the right; its unit is added.
        cost_title: of the axis upward.
        cost_from_zero: whether that axis begins at 0.
        what: what a point is, for the legend.
        budget_bytes: drawn as a line where it is not far beyond the points.
    """
    figure = go.Figure(layout=base_layout(theme, height=HEIGHT))
    highest = max(max(point.num_bytes for point in points), 1)
    named = _named(points, highest, 0.0 if cost_from_zero else min(point.cost for point in points))
    for is_dominated in (True, False):
        name = f"Beaten by another {what}" if is_dominated else "Not beaten"
        figure.add_trace(_marks(name, [one for one in points if one.is_dominated == is_dominated], is_dominated, named, theme))
    axis = byte_axis(max(highest, budget_bytes) if is_drawn(budget_bytes, highest) else highest)
    figure.update_layout(xaxis=byte_axis_layout(axis, bytes_title), yaxis_title={"text": cost_title, "font": {"size": 13}})
    figure.update_layout(legend={"yref": "container", "y": 0.01, "yanchor": "bottom"})
    figure.update_yaxes(rangemode="tozero" if cost_from_zero else "normal")
    if is_drawn(budget_bytes, highest):
        add_card(figure, budget_bytes, theme, along="x", name="budget")
        figure.update_layout(margin_t=30)
    return figure


def _named(points: Sequence[Point], highest_bytes: int, lowest_cost: float) -> dict[str, str]:
    """Return where the names stand that have room beside their points without lying over another: of the best first, short ones first."""
    tallest = max(point.cost - lowest_cost for point in points) or 1.0
    taken: list[tuple[float, float, float]] = []
    named = {}
    for point in sorted(points, key=lambda one: (one.is_dominated, len(one.name), one.num_bytes)):
        x, y, width = point.num_bytes / highest_bytes, (point.cost - lowest_cost) / tallest, _CHARACTER_SHARE * len(_short(point.name))
        side = "right" if x < width / 2 else "left" if x > 1 - width / 2 else "center"
        start = x - width * {"right": 0.0, "center": 0.5, "left": 1.0}[side]
        if all(abs(y - other) > _LINE_SHARE or start > end or start + width < begin for other, begin, end in taken):
            taken.append((y, start, start + width))
            named[point.name] = f"top {side}"
    return named


def _marks(name: str, points: Sequence[Point], is_dominated: bool, named: Mapping[str, str], theme: Theme) -> go.Scatter:
    color = theme.muted if is_dominated else theme.accent
    return go.Scatter(
        name=name,
        x=[float(point.num_bytes) for point in points],
        y=[point.cost for point in points],
        mode="markers+text",
        text=[plain(_short(point.name)) if point.name in named else "" for point in points],
        textposition=[named.get(point.name, "top center") for point in points],
        textfont={"size": 11, "color": theme.muted if is_dominated else theme.text},
        cliponaxis=False,
        marker={"size": 9, "color": color, "symbol": "circle-open" if is_dominated else "circle"},
        customdata=[point.said for point in points],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"

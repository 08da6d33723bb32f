"""Footprints of several runs -> bytes against what they cost, time or loss; runs that another one beats in all of it are grey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from profiler.analysis.footprint import Footprint
from profiler.figures.axes import add_card, base_layout, byte_axis, byte_axis_layout, empty_figure, is_drawn, plain
from profiler.figures.comparison import loss, step_time
from profiler.figures.theme import Theme, ThemeName, theme_named
from profiler.units import format_bytes

Cost = Literal["time", "loss"]
HEIGHT = 420
_CHARACTER_SHARE, _LINE_SHARE = 0.012, 0.07
"""About how much of a chart's width a character takes, and of its height a line; hovering tells names that have no room."""


@dataclass(frozen=True)
class _Point:
    name: str
    num_bytes: int
    cost: float
    is_dominated: bool
    said: str


def known_costs(runs: Mapping[str, Footprint]) -> list[Cost]:
    """Return what bytes can be drawn against: what at least two of the runs know."""
    kinds: tuple[Cost, ...] = ("time", "loss")
    return [kind for kind in kinds if sum(_cost(run, kind) is not None for run in runs.values()) > 1]


def pareto_figure(
    runs: Mapping[str, Footprint],
    dominated: frozenset[str],
    *,
    cost: Cost,
    theme: ThemeName = "light",
    budget_bytes: int | None = None,
) -> go.Figure:
    """Return one point a run: its peak to the right, its cost upward; the best lie at the lower left.

    Args:
        runs: footprints under the names to show; those whose cost is not known are left out.
        dominated: names of runs that another one beats.
        cost: what is drawn upward.
        theme: ``light`` or ``dark``.
        budget_bytes: drawn as a line.
    """
    colors = theme_named(theme)
    points = [
        _Point(name, run.peak_bytes, value, name in dominated, _said(name, run))
        for name, run in runs.items()
        if (value := _cost(run, cost)) is not None
    ]
    if not points:
        return empty_figure(colors, HEIGHT, f"The {cost} of these runs was not measured.")
    figure = go.Figure(layout=base_layout(colors, height=HEIGHT))
    highest = max(point.num_bytes for point in points)
    named = _named(points, highest)
    for is_dominated in (True, False):
        figure.add_trace(_marks([one for one in points if one.is_dominated == is_dominated], is_dominated, named, colors))
    axis = byte_axis(max(highest, budget_bytes) if is_drawn(budget_bytes, highest) else highest)
    titles = {"time": "Time of a step (s)", "loss": "Loss after the last step"}
    figure.update_layout(xaxis=byte_axis_layout(axis, "Peak allocated"), yaxis_title={"text": titles[cost], "font": {"size": 13}})
    figure.update_layout(legend={"yref": "container", "y": 0.01, "yanchor": "bottom"})
    figure.update_yaxes(rangemode="tozero" if cost == "time" else "normal")
    if is_drawn(budget_bytes, highest):
        add_card(figure, budget_bytes, colors, along="x", name="budget")
        figure.update_layout(margin_t=30)
    return figure


def _cost(run: Footprint, kind: Cost) -> float | None:
    if kind == "loss":
        return run.loss
    return run.cpu_seconds.median if run.cpu_seconds else run.estimated_step_seconds


def _said(name: str, run: Footprint) -> str:
    return f"{plain(name)}<br>{format_bytes(run.peak_bytes)}<br>time {step_time(run)}<br>loss {loss(run)}"


def _named(points: list[_Point], highest: int) -> set[str]:
    """Return the names that have room beside their points without lying over another one: of the best runs first."""
    tallest = max((abs(point.cost) for point in points), default=0.0) or 1.0
    taken: list[tuple[float, float, float]] = []
    named = set()
    for point in sorted(points, key=lambda one: (one.is_dominated, one.num_bytes)):
        x, y, half = point.num_bytes / highest, point.cost / tallest, _CHARACTER_SHARE * len(point.name) / 2
        if all(abs(y - other_y) > _LINE_SHARE or abs(x - other_x) > half + other_half for other_x, other_y, other_half in taken):
            taken.append((x, y, half))
            named.add(point.name)
    return named


def _marks(points: list[_Point], is_dominated: bool, named: set[str], theme: Theme) -> go.Scatter:
    color = theme.muted if is_dominated else theme.accent
    return go.Scatter(
        name="Beaten by another run" if is_dominated else "Not beaten",
        x=[float(point.num_bytes) for point in points],
        y=[point.cost for point in points],
        mode="markers+text",
        text=[plain(point.name) if point.name in named else "" for point in points],
        textposition="top center",
        textfont={"size": 11, "color": theme.muted if is_dominated else theme.text},
        cliponaxis=False,
        marker={"size": 9, "color": color, "symbol": "circle-open" if is_dominated else "circle"},
        customdata=[point.said for point in points],
        hovertemplate="%{customdata}<extra></extra>",
    )

"""Footprints of several runs -> bytes against what they cost, time or loss; runs that another one beats in all of it are grey."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import plotly.graph_objects as go

from profiler.analysis.footprint import Footprint
from profiler.figures.axes import empty_figure, plain
from profiler.figures.comparison import loss, step_time
from profiler.figures.points import HEIGHT, Point, points_figure
from profiler.figures.theme import ThemeName, theme_named
from profiler.units import format_bytes

Cost = Literal["time", "loss"]


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
        Point(name, run.peak_bytes, value, name in dominated, _said(name, run))
        for name, run in runs.items()
        if (value := _cost(run, cost)) is not None
    ]
    if not points:
        return empty_figure(colors, HEIGHT, f"The {cost} of these runs was not measured.")
    titles = {"time": "Time of a step (s)", "loss": "Loss after the last step"}
    return points_figure(
        points,
        theme=colors,
        bytes_title="Peak allocated",
        cost_title=titles[cost],
        cost_from_zero=cost == "time",
        what="run",
        budget_bytes=budget_bytes,
    )


def _cost(run: Footprint, kind: Cost) -> float | None:
    if kind == "loss":
        return run.loss
    return run.cpu_seconds.median if run.cpu_seconds else run.estimated_step_seconds


def _said(name: str, run: Footprint) -> str:
    return f"{plain(name)}<br>{format_bytes(run.peak_bytes)}<br>time {step_time(run)}<br>loss {loss(run)}"

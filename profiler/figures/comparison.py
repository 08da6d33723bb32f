"""Footprints of several runs -> one stacked bar a run, its peak by category, and the table of what differs from the first."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from profiler.analysis.budgets import NO_BUDGETS, Budgets, Tier
from profiler.analysis.footprint import Footprint, Spread
from profiler.figures.axes import empty_figure
from profiler.figures.composition import category_marker
from profiler.figures.rows import BAR_WIDTH, add_budget, rows_figure, sized
from profiler.figures.theme import STACK_ORDER, Theme, ThemeName, theme_named
from profiler.recording import Category
from profiler.units import exact_bytes, format_bytes, format_duration_us

NOT_MEASURED = "not measured"
_EMPTY_HEIGHT = 150
_LEGEND_HEIGHT = 60


def comparison_figure(
    runs: Mapping[str, Footprint], *, theme: ThemeName = "light", title: str = "Allocated at the peak", budget_bytes: int | None = None
) -> go.Figure:
    """Return one horizontal stacked bar a run: what its peak is made of.

    Args:
        runs: footprints under the names to show, top first.
        theme: ``light`` or ``dark``.
        title: what the axis shows; its unit is added.
        budget_bytes: drawn as a line.
    """
    colors = theme_named(theme)
    highest = max((run.peak_bytes for run in runs.values()), default=0)
    if not highest:
        return empty_figure(colors, _EMPTY_HEIGHT, "No run has allocated anything.")
    names = [sized(name, run.peak_bytes) for name, run in runs.items()]
    figure = rows_figure(names, highest_bytes=highest, title=title, budget_bytes=budget_bytes, theme=colors, bottom_px=_LEGEND_HEIGHT)
    for category in STACK_ORDER:
        if any(category in run.peak.categories for run in runs.values()):
            figure.add_trace(_band(category, runs, colors))
    legend = {"yref": "container", "y": 0.01, "yanchor": "bottom", "x": 0, "xanchor": "left"}
    figure.update_layout(showlegend=True, legend=legend)
    add_budget(figure, budget_bytes, colors)
    return figure


def comparison_table(runs: Mapping[str, Footprint], budgets: Budgets = NO_BUDGETS) -> pd.DataFrame:
    """Return one row a run, and for each category that differs in any its change.

    Columns: run, peak_bytes, against_first_bytes, over_budget_bytes where there is a budget, host_bytes where a run on a GPU holds any,
    over_host_budget_bytes where there is one, peak_in, step_time, wall_time, loss, loss_against_first, provenance, and one a category by
    its label. Changes are the run's bytes at its peak minus the first run's at its;
    those of a row sum to ``against_first_bytes``.
    """
    first = next(iter(runs.values()), None)
    rows = []
    for name, run in runs.items():
        before = first.peak.categories if first else {}
        changes = {category: run.peak.categories.get(category, 0) - before.get(category, 0) for category in STACK_ORDER}
        row = {"run": name, "peak_bytes": run.peak_bytes, "against_first_bytes": run.peak_bytes - (first.peak_bytes if first else 0)}
        over = {verdict.tier: verdict.over_bytes for verdict in budgets.verdicts(run)}
        row |= {
            "over_budget_bytes": over.get(Tier.DEVICE),
            "host_bytes": run.host_bytes,
            "over_host_budget_bytes": over.get(Tier.HOST),
            "peak_in": str(run.peak.phase),
            "step_time": step_time(run),
            "wall_time": wall_time(run),
            "loss": loss(run),
            "loss_against_first": loss_change(run, first) if first else NOT_MEASURED,
            "provenance": str(run.provenance),
        }
        rows.append(row | {f"{category.label.lower()}_bytes": change for category, change in changes.items()})
    table = pd.DataFrame(rows)
    columns = ["host_bytes", *(f"{category.label.lower()}_bytes" for category in STACK_ORDER)]
    unused = [name for name in columns if name in table and not table[name].any()]
    return table.drop(columns=unused).dropna(axis="columns", how="all")


def step_time(run: Footprint) -> str:
    """Return how long a step takes and how that is known: processor time measured here, or an estimate for a GPU."""
    if run.cpu_seconds is not None:
        return _spread(run.cpu_seconds)
    if run.estimated_step_seconds is not None:
        return f"about {format_duration_us(run.estimated_step_seconds * 1e6)}, estimated"
    return NOT_MEASURED


def loss(run: Footprint) -> str:
    """Return the loss after the last step, and how far reruns of it differ where they do; a simulated run has none."""
    if run.loss is None:
        return NOT_MEASURED
    return f"{run.loss:.4f}" + (f" ± {run.loss_tolerance:.1g}" if run.loss_tolerance else "")


def loss_change(run: Footprint, first: Footprint) -> str:
    """Return the loss minus the first run's, and whether reruns of the same differ as much."""
    found = run.loss_against(first)
    if found is None:
        return NOT_MEASURED
    gain, is_told = found
    return f"{gain:+.4g}" if is_told or run is first else f"{gain:+.4g}, as reruns differ"


def wall_time(run: Footprint) -> str:
    """Return the time on the clock of a step that was measured, which other programs of the machine lengthen."""
    return NOT_MEASURED if run.wall_seconds is None else _spread(run.wall_seconds)


def _spread(spread: Spread) -> str:
    median, low, high = (format_duration_us(seconds * 1e6) for seconds in (spread.median, spread.low, spread.high))
    return f"{median} ({low} to {high})"


def _band(category: Category, runs: Mapping[str, Footprint], theme: Theme) -> go.Bar:
    sizes = [run.peak.categories.get(category, 0) for run in runs.values()]
    details = [
        f"{format_bytes(size)} of {format_bytes(run.peak_bytes)}, {exact_bytes(size)}"
        for size, run in zip(sizes, runs.values(), strict=True)
    ]
    return go.Bar(
        name=category.label,
        x=[float(size) for size in sizes],
        y=[-row for row in range(len(sizes))],
        orientation="h",
        width=BAR_WIDTH,
        marker=category_marker(category, theme),
        customdata=details,
        hovertemplate=f"{category.label}: %{{customdata}}<extra></extra>",
    )

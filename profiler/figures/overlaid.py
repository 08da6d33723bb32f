"""Two timelines -> their allocated bytes on one axis: the step of each that holds its peak, phase laid over phase."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import plotly.graph_objects as go

from profiler.analysis.columns import Array
from profiler.analysis.intervals import Interval
from profiler.analysis.timeline import Timeline
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

Aligned = Literal["phases", "time"]
HEIGHT = 400


class _Line(NamedTuple):
    name: str
    timeline: Timeline
    rows: Array
    """The events that are drawn."""
    x: Array


def overlaid_figure(
    runs: tuple[tuple[str, Timeline], tuple[str, Timeline]],
    *,
    aligned: Aligned = "phases",
    theme: ThemeName = "light",
    budget_bytes: int | None = None,
) -> go.Figure:
    """Return the allocated bytes of both runs as lines over the step in which each has its peak.

    Args:
        runs: two timelines with their names.
        aligned: ``phases`` gives every phase the same width in both, where both go through the same phases; ``time`` counts from the start.
        theme: ``light`` or ``dark``.
        budget_bytes: drawn as a line where it does not press the chart flat.
    """
    colors = theme_named(theme)
    if any(not timeline.num_events for _, timeline in runs):
        return empty_figure(colors, HEIGHT, "One of the runs has no events.")
    phases = [_phases(timeline) for _, timeline in runs]
    by_phase = aligned == "phases" and bool(phases[0]) and [p.name for p in phases[0]] == [p.name for p in phases[1]]
    span = max(_span(timeline) for _, timeline in runs)
    title, factor = time_axis(span, runs[0][1].metadata.clock)
    lines = []
    for (name, timeline), intervals in zip(runs, phases, strict=True):
        start, end = _events(timeline)
        rows = timeline.pick_rows(start=start, end=end).rows
        times = timeline.blocks.event_us[rows]
        x = _through(intervals, times) if by_phase else (times - times[0]) / factor
        lines.append(_Line(name, timeline, rows, x))
    figure = go.Figure(layout=base_layout(colors, height=HEIGHT, revision=aligned))
    for line, color, dash in zip(lines, (colors.muted, colors.accent), ("dot", "solid"), strict=True):
        figure.add_trace(_drawn(line, color, dash))
        figure.add_trace(_peak(line, colors))
    highest = max(timeline.peak_bytes for _, timeline in runs)
    axis = byte_axis(max(highest, budget_bytes) if is_drawn(budget_bytes, highest) else highest)
    figure.update_layout(hovermode="x unified", yaxis=byte_axis_layout(axis, "Allocated"))
    _name_x(figure, phases[0] if by_phase else (), title.replace("the recording", "the step"))
    if is_drawn(budget_bytes, highest):
        add_card(figure, budget_bytes, colors, along="y", name="budget")
    return figure


def _events(timeline: Timeline) -> tuple[int, int]:
    """Return the first event of the step that holds the peak, and the event after its last; without steps, of the recording."""
    steps = timeline.blocks.event_step
    inside = np.flatnonzero(steps == steps[timeline.peak_event])
    return int(inside[0]), int(inside[-1]) + 1


def _phases(timeline: Timeline) -> list[Interval]:
    step = int(timeline.blocks.event_step[timeline.peak_event])
    return [phase for phase in timeline.phases if phase.step == step]


def _span(timeline: Timeline) -> float:
    start, end = _events(timeline)
    return float(timeline.blocks.event_us[end - 1] - timeline.blocks.event_us[start])


def _through(phases: list[Interval], times: Array) -> Array:
    """Return how far through its phases each instant is: 1.5 is the middle of the second."""
    starts, ends = (np.array([getattr(phase, name) for phase in phases]) for name in ("start_us", "end_us"))
    place = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, len(phases) - 1)
    share = (times - starts[place]) / np.maximum(ends[place] - starts[place], 1e-9)
    return np.asarray(place + np.clip(share, 0.0, 1.0))


def _drawn(line: _Line, color: str, dash: str) -> go.Scatter:
    return go.Scatter(
        name=plain(line.name),
        x=float32(line.x),
        y=exact_numbers(line.timeline.total[line.rows]),
        mode="lines",
        line={"shape": "hv", "width": 2, "color": color, "dash": dash},
        hovertemplate="%{y:,.0f} B",
    )


def _peak(line: _Line, theme: Theme) -> go.Scatter:
    row = np.flatnonzero(line.rows == line.timeline.peak_event)
    return go.Scatter(
        x=line.x[row],
        y=line.timeline.total[line.rows[row]].astype(np.float64),
        mode="markers+text",
        text=[format_bytes(line.timeline.peak_bytes)] * len(row),
        textposition="top right" if len(row) and line.x[row[0]] < (line.x[0] + line.x[-1]) / 2 else "top left",
        textfont={"color": theme.text, "size": 13},
        marker={"symbol": "diamond", "size": 9, "color": theme.text},
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )


def _name_x(figure: go.Figure, phases: list[Interval] | tuple[()], title: str) -> None:
    if not phases:
        figure.update_xaxes(title={"text": title, "font": {"size": 13}})
        return
    middles = [place + 0.5 for place in range(len(phases))]
    labels = [phase.name.replace("_", " ") for phase in phases]
    figure.update_xaxes(tickvals=middles, ticktext=labels, showgrid=False, range=[0, len(phases)])
    for place in range(1, len(phases)):
        figure.add_vline(x=place, line={"color": figure.layout.yaxis.gridcolor, "width": 1})

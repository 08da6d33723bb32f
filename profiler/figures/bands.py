"""Steps and phases -> quiet marks over a timeline: a strip of phases on top and a line where each step begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go

from profiler.analysis.columns import Array
from profiler.analysis.intervals import Interval
from profiler.analysis.timeline import Timeline
from profiler.figures.axes import plain
from profiler.figures.theme import Theme

MAX_MARKS = 100
"""Shapes that a chart draws at most; beyond it, steps are thinned and phases left out."""

_LABEL_SHARE = 0.05
_STRIP = (1.005, 1.045)


def add_bands(figure: go.Figure, timeline: Timeline, place: Callable[[Array], Array], events: tuple[int, int], theme: Theme) -> None:
    """Add the marks that lie in a window.

    Args:
        figure: what to add to.
        timeline: whose steps and phases.
        place: from microseconds to the x axis.
        events: the window's first and last event.
        theme: the colours.
    """
    start_us, end_us = (float(timeline.blocks.event_us[event]) for event in events)
    shapes: list[dict[str, object]] = []
    notes: list[dict[str, object]] = []
    phases = _inside(timeline.phases, start_us, end_us)
    if len(phases) <= MAX_MARKS:
        _add_phases(shapes, notes, phases, place, (start_us, end_us), theme)
    steps = _inside(timeline.steps, start_us, end_us)
    _add_steps(shapes, notes, steps[:: max(-(-len(steps) // (MAX_MARKS // 4)), 1)], place, start_us, theme)
    figure.update_layout(shapes=shapes, annotations=notes)
    figure.update_layout(legend_y=1.06, margin_t=8)


def _inside(intervals: Sequence[Interval], start_us: float, end_us: float) -> list[Interval]:
    return [interval for interval in intervals if interval.end_us >= start_us and interval.start_us <= end_us]


def _add_phases(
    shapes: list[dict[str, object]],
    notes: list[dict[str, object]],
    phases: Sequence[Interval],
    place: Callable[[Array], Array],
    window: tuple[float, float],
    theme: Theme,
) -> None:
    low, high = place(np.array(window))
    for number, phase in enumerate(phases):
        left, right = (float(x) for x in np.clip(place(np.array([phase.start_us, phase.end_us])), low, high))
        box = {"type": "rect", "xref": "x", "yref": "paper", "x0": left, "x1": right, "y0": _STRIP[0], "y1": _STRIP[1]}
        shapes.append(box | {"fillcolor": theme.strips[number % 2], "line": {"width": 0}, "layer": "above"})
        if right - left >= _LABEL_SHARE * (high - low):
            notes.append(_note(phase.name, (left + right) / 2, "center", sum(_STRIP) / 2, theme))


def _add_steps(
    shapes: list[dict[str, object]],
    notes: list[dict[str, object]],
    steps: Sequence[Interval],
    place: Callable[[Array], Array],
    start_us: float,
    theme: Theme,
) -> None:
    for step in steps:
        if step.start_us < start_us:
            continue
        x = float(place(np.array([step.start_us]))[0])
        shapes.append(
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": x,
                "x1": x,
                "y0": 0,
                "y1": 1,
                "line": {"color": theme.muted, "width": 1, "dash": "dot"},
            }
        )
        notes.append(_note(f"step {step.step}", x, "left", 0.98, theme))


def _note(text: str, x: float, anchor: str, y: float, theme: Theme) -> dict[str, object]:
    return {
        "text": plain(text),
        "x": x,
        "y": y,
        "xref": "x",
        "yref": "paper",
        "xanchor": anchor,
        "yanchor": "middle",
        "showarrow": False,
        "font": {"size": 11, "color": theme.muted},
    }

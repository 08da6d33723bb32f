"""Savings in their order -> a waterfall from the baseline's peak to the peak with all toggles on, and the table beside it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from profiler.analysis.savings import Saving
from profiler.figures.axes import empty_figure
from profiler.figures.rows import BAR_WIDTH, add_budget, rows_figure, sized
from profiler.figures.theme import ThemeName, theme_named
from profiler.units import exact_bytes, format_bytes

_EMPTY_HEIGHT = 150


def waterfall_figure(
    savings: Sequence[Saving], *, last: str = "All together", theme: ThemeName = "light", budget_bytes: int | None = None
) -> go.Figure:
    """Return the baseline, what each toggle takes off or adds once those before it are on, and what is left.

    Args:
        savings: as `profiler.analysis.savings.waterfall` returns them: each begins where the one before ended.
        last: what to call the run in which they are all on.
        theme: ``light`` or ``dark``.
        budget_bytes: drawn as a line.
    """
    colors = theme_named(theme)
    if not savings:
        return empty_figure(colors, _EMPTY_HEIGHT, "No step is here yet.")
    first, left = savings[0].before.peak_bytes, savings[-1].after.peak_bytes
    steps = [f"{saving.toggle}: {format_bytes(-saving.saved_bytes, signed=True)}" for saving in savings]
    names = [sized("baseline", first), *steps, sized(last, left)]
    highest = max(first, *(saving.after.peak_bytes for saving in savings))
    figure = rows_figure(names, highest_bytes=highest, title="Peak allocated", budget_bytes=budget_bytes, theme=colors)
    ends = [(0, first), *((saving.before.peak_bytes, saving.after.peak_bytes) for saving in savings), (0, left)]
    fills = [colors.muted, *(colors.accent if saving.saved_bytes >= 0 else colors.overlays[2] for saving in savings), colors.muted]
    figure.add_trace(
        go.Bar(
            base=[float(min(end)) for end in ends],
            x=[float(max(end) - min(end)) for end in ends],
            y=[-row for row in range(len(ends))],
            orientation="h",
            width=BAR_WIDTH,
            marker={
                "color": fills,
                "pattern": {"shape": ["/" if saved < 0 else "" for saved in _saved(savings)], "fgcolor": colors.background},
            },
            customdata=[exact_bytes(first), *(exact_bytes(-saving.saved_bytes) for saving in savings), exact_bytes(left)],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    for row, saving in enumerate(savings):
        level, line = float(saving.before.peak_bytes), {"color": colors.muted, "width": 1, "dash": "dot"}
        figure.add_shape(type="line", x0=level, x1=level, y0=BAR_WIDTH / 2 - row, y1=-BAR_WIDTH / 2 - row - 1, line=line)
    add_budget(figure, budget_bytes, colors)
    return figure


def waterfall_table(savings: Sequence[Saving]) -> pd.DataFrame:
    """Return one row a toggle, in order: toggle, before_bytes, saved_bytes (negative: it costs), after_bytes, peak_before, peak_after.

    ``saved_bytes`` sum to the first ``before_bytes`` minus the last ``after_bytes``.
    """
    rows = [
        {
            "toggle": saving.toggle,
            "before_bytes": saving.before.peak_bytes,
            "saved_bytes": saving.saved_bytes,
            "after_bytes": saving.after.peak_bytes,
            "peak_before": str(saving.before.peak.phase),
            "peak_after": str(saving.after.peak.phase),
        }
        for saving in savings
    ]
    return pd.DataFrame(rows)


def _saved(savings: Sequence[Saving]) -> list[int]:
    return [0, *(saving.saved_bytes for saving in savings), 0]

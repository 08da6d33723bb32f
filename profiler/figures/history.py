"""Readings over time -> line charts: the memory of a running job, and the history that Monitor shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from profiler.figures.theme import ThemeName

Unit = str


def live_figure(live: Sequence[tuple[float, int, int | None]], *, theme: ThemeName = "light") -> go.Figure:
    """Return the memory of a running job.

    Args:
        live: (seconds, resident set bytes, allocated bytes or None) in order of time, as a run's status holds them.
        theme: ``light`` or ``dark``.
    """
    raise NotImplementedError


def live_table(live: Sequence[tuple[float, int, int | None]]) -> pd.DataFrame:
    """Return seconds, rss_bytes, allocated_bytes."""
    raise NotImplementedError


def history_figure(
    seconds: Sequence[float],
    series: Mapping[str, Sequence[float | None]],
    *,
    unit: Unit,
    title: str,
    limit: float | None = None,
    theme: ThemeName = "light",
) -> go.Figure:
    """Return one line a series over the last minutes.

    Args:
        seconds: instants; the last one is now, and x counts back from it.
        series: name to values; None where there was no reading.
        unit: ``bytes`` (drawn in GiB or MiB) or a unit's text, such as ``%`` or ``W``.
        title: what the y axis shows.
        limit: a line that the values must stay under, in the same unit as the values.
        theme: ``light`` or ``dark``.
    """
    raise NotImplementedError


def history_table(seconds: Sequence[float], series: Mapping[str, Sequence[float | None]]) -> pd.DataFrame:
    """Return seconds and one column a series."""
    raise NotImplementedError

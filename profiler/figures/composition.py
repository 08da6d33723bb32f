"""Bytes by category -> one horizontal stacked bar, and the table beside it."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from profiler.figures.theme import ThemeName
from profiler.recording import Category


def composition_figure(categories: dict[Category, int], *, theme: ThemeName = "light", title: str = "") -> go.Figure:
    """Return what an instant's allocated memory is made of, as one bar; parts over 8 % carry their label."""
    raise NotImplementedError


def composition_table(categories: dict[Category, int]) -> pd.DataFrame:
    """Return category (label), bytes, share (0 to 1) and definition, in stack order."""
    raise NotImplementedError

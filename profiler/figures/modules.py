"""The module tree of an instant -> an icicle, and the table beside it."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from profiler.figures.theme import ThemeName


def module_figure(tree: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Return `attribution.module_tree` as an icicle; a node's colour is the category that holds most of it."""
    raise NotImplementedError


def module_table(tree: pd.DataFrame) -> pd.DataFrame:
    """Return module (full path), bytes, own_bytes, share (0 to 1) and largest category (label), largest first."""
    raise NotImplementedError

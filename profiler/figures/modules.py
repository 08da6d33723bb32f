"""The module tree of an instant -> an icicle, and the table beside it."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from profiler.figures.axes import base_layout, empty_figure, plain
from profiler.figures.theme import ThemeName, ink_on, theme_named
from profiler.recording import Category
from profiler.units import exact_bytes, format_bytes

HEIGHT = 460


def module_figure(tree: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Return `attribution.module_tree` as an icicle; a node's colour is the category that holds most of it."""
    colors = theme_named(theme)
    if not len(tree) or not int(tree["bytes"].iloc[0]):
        return empty_figure(colors, HEIGHT, "Nothing is allocated at this instant.")
    categories = [Category[name] for name in tree["category"]]
    fills = [colors.colors[category] for category in categories]
    total = int(tree["bytes"].iloc[0])
    details = [
        f"{plain(path)}<br>{format_bytes(size)} ({100 * size / total:.1f} %), {exact_bytes(size)}"
        f"<br>own: {format_bytes(own)}, mostly {category.label.lower()}"
        for path, size, own, category in zip(tree["id"], tree["bytes"], tree["own_bytes"], categories, strict=True)
    ]
    icicle = go.Icicle(
        ids=tree["id"],
        parents=tree["parent"],
        labels=[plain(label) for label in tree["label"]],
        values=tree["bytes"].astype(float),
        branchvalues="total",
        sort=False,
        customdata=details,
        hovertemplate="%{customdata}<extra></extra>",
        text=[format_bytes(size) for size in tree["bytes"]],
        texttemplate="%{label}<br>%{text}",
        marker={
            "colors": fills,
            "line": {"color": colors.background, "width": 1},
        },
        leaf={"opacity": 1},
        textfont={"color": [ink_on(fill) for fill in fills], "size": 12},
        tiling={"orientation": "v"},
        pathbar={"visible": True, "textfont": {"color": ink_on(fills[0])}},
    )
    figure = go.Figure(icicle, layout=base_layout(colors, height=HEIGHT))
    figure.update_layout(uniformtext={"minsize": 10, "mode": "hide"})
    return figure


def module_table(tree: pd.DataFrame) -> pd.DataFrame:
    """Return module (full path), bytes, own_bytes, share (0 to 1) and largest category (label), largest first."""
    total = max(int(tree["bytes"].max()) if len(tree) else 0, 1)
    table = pd.DataFrame(
        {
            "module": tree["id"],
            "bytes": tree["bytes"],
            "own_bytes": tree["own_bytes"],
            "share": tree["bytes"] / total,
            "category": [Category[name].label for name in tree["category"]],
        }
    )
    return table.sort_values("bytes", ascending=False, kind="stable").reset_index(drop=True)

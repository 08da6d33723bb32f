"""The loss with one matrix alone compressed -> a bar a matrix; and the weights before and after -> two outlines over each other."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from profiler.compression.result import Result
from profiler.figures.axes import base_layout, empty_figure, plain
from profiler.figures.theme import ThemeName, theme_named

MOST_BARS = 60
_ROW_HEIGHT, _FIXED_HEIGHT, _EMPTY_HEIGHT, _HISTOGRAM_HEIGHT = 22, 90, 150, 340


def sensitivity_figure(result: Result, *, theme: ThemeName = "light") -> go.Figure:
    """Return one bar a matrix, the most sensitive on top: how much loss it costs when only this matrix is compressed.

    Args:
        result: with layers; of more than `MOST_BARS` the most sensitive are drawn.
        theme: ``light`` or ``dark``.
    """
    colors = theme_named(theme)
    table = sensitivity_table(result).head(MOST_BARS)
    if table.empty:
        return empty_figure(colors, _EMPTY_HEIGHT, "The matrices were not measured one by one yet.")
    figure = go.Figure(layout=base_layout(colors, height=_FIXED_HEIGHT + _ROW_HEIGHT * len(table)))
    gains = table["loss_gain"].tolist()
    figure.add_bar(
        x=gains,
        y=[plain(name.removesuffix(".weight")) for name in table["matrix"]],
        orientation="h",
        marker={"color": [colors.accent if gain > 0 else colors.overlays[3] for gain in gains]},
        customdata=table["num_weights"],
        hovertemplate="%{y}: loss %{x:+.5f}, %{customdata:,} weights<extra></extra>",
    )
    figure.update_xaxes(
        title={"text": f"Loss gained (nats per {result.unit})", "font": {"size": 13}}, zeroline=True, zerolinecolor=colors.muted
    )
    figure.update_yaxes(autorange="reversed", tickfont={"size": 11})
    return figure


def sensitivity_table(result: Result) -> pd.DataFrame:
    """Return one row a matrix, the most sensitive first: matrix, num_weights, loss, loss_gain, gain_per_million_weights."""
    rows = [
        {
            "matrix": layer.name,
            "num_weights": layer.num_weights,
            "loss": layer.loss,
            "loss_gain": layer.loss - result.baseline_quality.loss,
            "gain_per_million_weights": (layer.loss - result.baseline_quality.loss) / max(1, layer.num_weights) * 1e6,
        }
        for layer in result.layers
    ]
    table = pd.DataFrame(rows, columns=["matrix", "num_weights", "loss", "loss_gain", "gain_per_million_weights"])
    return table.sort_values("loss_gain", ascending=False, kind="stable", ignore_index=True)


def weights_figure(histograms: dict[str, Any], *, theme: ThemeName = "light") -> go.Figure:
    """Return how many weights of the matrices have which value, before and after; counts on a logarithmic axis.

    Args:
        histograms: as results hold them: ``before`` and ``after`` are counts between ``edges``; what is beyond them is in the last bins.
        theme: ``light`` or ``dark``.
    """
    colors = theme_named(theme)
    if not histograms or not sum(histograms["after"]):
        return empty_figure(colors, _EMPTY_HEIGHT, "After this technique no weights are left as numbers that could be counted.")
    figure = go.Figure(layout=base_layout(colors, height=_HISTOGRAM_HEIGHT))
    edges = histograms["edges"]
    for name, color, width in (("before", colors.muted, 1.5), ("after", colors.accent, 2.0)):
        counts = histograms[name]
        figure.add_scatter(
            name=name.capitalize(),
            x=edges,
            y=[*(count or None for count in counts), counts[-1] or None],
            mode="lines",
            line={"shape": "hv", "color": color, "width": width},
            hovertemplate=f"%{{y:,}} weights {name} at %{{x:.4f}}<extra></extra>",
        )
    figure.update_xaxes(title={"text": "Weight", "font": {"size": 13}})
    figure.update_yaxes(title={"text": "Weights", "font": {"size": 13}}, type="log")
    return figure

"""Many values -> the few rows that a chart can show, with the highest and the lowest of every stretch among them."""

from __future__ import annotations

import numpy as np

from profiler.analysis.columns import Array


def pick_extremes(values: Array, max_points: int, edges: Array | None = None) -> Array:
    """Return rows of ``values`` in order: the first, the last, and the highest and the lowest of each bin.

    Args:
        values: one value a row.
        max_points: rows to return at most, 8 or more; fewer values are all returned.
        edges: the first row of each bin, at most `num_bins` of them; by default bins of equal length.
    """
    if len(values) <= max_points:
        return np.arange(len(values))
    if edges is None:
        edges = np.linspace(0, len(values), num_bins(max_points), endpoint=False).astype(np.int64)
    return np.unique(np.concatenate([[0, len(values) - 1], _first_highest(values, edges), _first_highest(-values, edges)]))


def num_bins(max_points: int) -> int:
    """Return into how many bins `pick_extremes` cuts for ``max_points`` rows."""
    return (max_points - 3) // 2


def _first_highest(values: Array, edges: Array) -> Array:
    """Return the first row of the highest value in each bin."""
    highest = np.maximum.reduceat(values, edges)
    lengths = np.diff(np.append(edges, len(values)))
    hits = np.flatnonzero(values == np.repeat(highest, lengths))
    bins = np.searchsorted(edges, hits, side="right")
    return np.asarray(hits[np.unique(bins, return_index=True)[1]])

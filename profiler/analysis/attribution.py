"""A timeline and an instant -> who owns the memory: tables of blocks, modules and search results.

The only analysis module that needs pandas; the frames go to pages and downloads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from profiler.analysis.categories import CATEGORIES, PHASES
from profiler.analysis.columns import Array
from profiler.analysis.module_tree import models_of, module_nodes
from profiler.analysis.timeline import Timeline
from profiler.analysis.tree import TreeNode
from profiler.recording import Category

_SEARCHED = [f"{category.label} {category.name}".lower() for category in CATEGORIES]
_LABELS = np.array([category.label for category in CATEGORIES], dtype=object)
_PHASE_NAMES = np.array([phase.value for phase in PHASES], dtype=object)


@dataclass(frozen=True, eq=False)
class Allocations:
    """The largest blocks that a search found, and how many it found in all."""

    table: pd.DataFrame
    num_matching: int
    matching_bytes: int


def alive_at(timeline: Timeline, event: int, limit: int | None = None) -> pd.DataFrame:
    """Return the blocks allocated right after ``event``, largest first.

    Columns: category, module, tensor, operator, shape, dtype, bytes, step, phase (both of birth), born_us, freed_us (NaN where never),
    block (its place in `Blocks`).

    Args:
        timeline: the lane.
        event: the instant.
        limit: rows to return at most.
    """
    return block_table(timeline, _largest_first(timeline, timeline.alive(event), limit))


def categories_at(timeline: Timeline, event: int) -> dict[Category, int]:
    """Return the bytes of each category that holds any right after ``event``; they sum to the total."""
    return timeline.categories_at(event)


def group_at(timeline: Timeline, event: int, by: str) -> pd.DataFrame:
    """Return bytes and number of blocks right after ``event`` by one column of `alive_at`, largest first.

    Args:
        timeline: the lane.
        event: the instant.
        by: ``category``, ``module``, ``tensor``, ``operator``, ``dtype``, ``shape`` or ``phase``.
    """
    groups = alive_at(timeline, event).groupby(by, sort=False)["bytes"]
    table = pd.DataFrame({"bytes": groups.sum(), "num_blocks": groups.size()})
    table["share"] = table["bytes"] / max(int(table["bytes"].sum()), 1)
    return table.sort_values("bytes", ascending=False, kind="stable").reset_index()


def module_tree(timeline: Timeline, event: int, max_nodes: int = 300) -> pd.DataFrame:
    """Return the tree of module paths with the bytes alive right after ``event``, for an icicle.

    Columns: id, parent (empty for the root), label, bytes (children included), own_bytes, category (name of the one that holds most).
    What does not fit ``max_nodes`` is summed into one node "other" under its parent, so every parent is its own bytes and its children's.
    """
    alive = timeline.alive(event)
    blocks = timeline.blocks
    nodes = module_nodes(blocks.module[alive], blocks.category[alive], blocks.bytes[alive], max_nodes, models_of(timeline.metadata))
    return pd.DataFrame(nodes, columns=list(TreeNode._fields))


def top_allocations(timeline: Timeline, query: str = "", limit: int = 200, event: int | None = None) -> Allocations:
    """Return the largest blocks whose module, operator, tensor, shape, dtype or category contain every word of ``query``.

    Args:
        timeline: the lane.
        query: words in any case; empty for all blocks.
        limit: rows to return at most.
        event: only blocks alive right after this event; by default all of the recording.
    """
    candidates = timeline.members if event is None else timeline.alive(event)
    found = candidates[_matches(timeline, candidates, query)]
    table = block_table(timeline, _largest_first(timeline, found, limit))
    return Allocations(table, len(found), int(timeline.blocks.bytes[found].sum()))


def block_table(timeline: Timeline, rows: Array) -> pd.DataFrame:
    """Return one row for each place ``rows`` in `Blocks`, with the columns of `alive_at`."""
    blocks = timeline.blocks
    freed = blocks.death_event[rows] < blocks.num_events
    return pd.DataFrame(
        {
            "category": _LABELS[blocks.category[rows]],
            "module": blocks.module[rows].texts(),
            "tensor": blocks.tensor[rows].texts(),
            "operator": blocks.operator[rows].texts(),
            "shape": blocks.shape[rows].texts(),
            "dtype": blocks.dtype[rows].texts(),
            "bytes": blocks.bytes[rows],
            "step": blocks.step[rows],
            "phase": _PHASE_NAMES[blocks.phase[rows]],
            "born_us": blocks.birth_us[rows],
            "freed_us": np.where(freed, blocks.death_us[rows], np.nan),
            "block": rows,
        }
    )


def _largest_first(timeline: Timeline, rows: Array, limit: int | None) -> Array:
    sizes = timeline.blocks.bytes[rows]
    if limit is not None and 0 < limit < len(rows):
        cut = np.partition(sizes, len(sizes) - limit)[len(sizes) - limit]
        rows, sizes = rows[sizes >= cut], sizes[sizes >= cut]
    return np.asarray(rows[np.argsort(-sizes, kind="stable")][:limit])


def _matches(timeline: Timeline, rows: Array, query: str) -> Array:
    blocks = timeline.blocks
    found = np.ones(len(rows), bool)
    for term in query.lower().split():
        hit = np.array([term in text for text in _SEARCHED])[blocks.category[rows]]
        for column in (blocks.module, blocks.operator, blocks.tensor, blocks.shape, blocks.dtype):
            hit = hit | column[rows].containing(term)
        found &= hit
    return found

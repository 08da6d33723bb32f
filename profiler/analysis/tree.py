"""Paths with bytes -> a tree with exact sums, cut to as many nodes as a chart can show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from profiler.analysis.categories import CATEGORIES
from profiler.analysis.columns import Array

ROOT = "all"
MAX_DEPTH = 24
Path = tuple[str, ...]


class TreeNode(NamedTuple):
    """One node: ``bytes`` is its own bytes and its children's."""

    id: str
    parent: str
    label: str
    bytes: int
    own_bytes: int
    category: str


@dataclass(eq=False)
class _Branch:
    by_category: Array
    own_bytes: int = 0
    children: set[Path] = field(default_factory=set)

    @property
    def bytes(self) -> int:
        return int(self.by_category.sum())


class Tree:
    """Bytes by category, by path; every branch holds what its children hold and what is its own."""

    def __init__(self) -> None:
        self._branches: dict[Path, _Branch] = {(ROOT,): _Branch(_nothing())}

    def add(self, parts: Sequence[str], by_category: Array) -> None:
        """Add bytes to the branch at ``parts``, below the root, and to all above it; ``by_category`` is in the order of `CATEGORIES`."""
        path: Path = (ROOT,)
        self._branches[path].by_category += by_category
        for part in parts:
            parent, path = path, (*path, part)
            self._branches.setdefault(path, _Branch(_nothing())).by_category += by_category
            self._branches[parent].children.add(path)
        self._branches[path].own_bytes += int(by_category.sum())

    def largest(self, max_nodes: int) -> list[Path]:
        """Return the largest paths that fit together with one node "other" for each whose children are cut, largest first."""
        branches = self._branches
        ranked = sorted(branches, key=lambda path: (-branches[path].bytes, len(path), path))
        count = min(len(ranked), max_nodes)
        while True:
            kept = set(ranked[:count])
            excess = count + sum(1 for path in kept if branches[path].children - kept) - max_nodes
            if excess <= 0 or count <= 1:
                return ranked[:count]
            count = max(count - excess, 1)

    def nodes(self, paths: Sequence[Path], separator: str) -> list[TreeNode]:
        """Return the nodes at ``paths`` in their order, then one "other" for each whose children are not all among them."""
        kept = set(paths)
        rest = [self._rest_of(path, kept, separator) for path in paths]
        return [self._node(path, separator) for path in paths] + [node for node in rest if node is not None]

    def _node(self, path: Path, separator: str) -> TreeNode:
        branch = self._branches[path]
        parent = separator.join(path[:-1])
        return TreeNode(separator.join(path), parent, path[-1], branch.bytes, branch.own_bytes, _largest([branch.by_category]))

    def _rest_of(self, path: Path, kept: set[Path], separator: str) -> TreeNode | None:
        """Return the node that sums the children of ``path`` that are not kept, if there are any."""
        cut = [self._branches[child] for child in self._branches[path].children - kept]
        if not cut:
            return None
        total = sum(branch.bytes for branch in cut)
        parent = separator.join(path)
        return TreeNode(f"{parent}/other", parent, f"other ({len(cut):,})", total, total, _largest(branch.by_category for branch in cut))


def sums_by_category(codes: Array, num_codes: int, category: Array, sizes: Array) -> Array:
    """Return bytes by code (the last row is that of code -1) and category.

    Args:
        codes: one a block, -1 where it has none.
        num_codes: how many there are.
        category: each block's category, as codes of `CATEGORIES`.
        sizes: each block's bytes.
    """
    sums = np.zeros((num_codes + 1, len(CATEGORIES)), np.int64)
    np.add.at(sums, (codes, category), sizes)
    return sums


def _nothing() -> Array:
    return np.zeros(len(CATEGORIES), np.int64)


def _largest(sums: Iterable[Array]) -> str:
    return CATEGORIES[int(np.argmax(np.sum(list(sums), axis=0)))].name

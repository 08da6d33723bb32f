"""Blocks with module paths -> a tree of modules with exact sums, cut to as many nodes as a chart can show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from profiler.analysis.categories import CATEGORIES
from profiler.analysis.columns import Array, Names

ROOT = "all"
NO_MODULE = "(no module)"
_MAX_DEPTH = 24


class ModuleNode(NamedTuple):
    """One node: ``bytes`` is its own bytes and its children's."""

    id: str
    parent: str
    label: str
    bytes: int
    own_bytes: int
    category: str


@dataclass(eq=False)
class _Module:
    by_category: Array
    own_bytes: int = 0
    children: set[str] = field(default_factory=set)

    @property
    def bytes(self) -> int:
        return int(self.by_category.sum())


def module_nodes(modules: Names, category: Array, sizes: Array, max_nodes: int) -> list[ModuleNode]:
    """Return the tree's nodes, the root first, every parent before its children, numbered layers in order.

    Args:
        modules: each block's module path, its parts joined by dots.
        category: each block's category, as codes of `categories.CATEGORIES`.
        sizes: each block's bytes.
        max_nodes: nodes to return at most, 3 or more.
    """
    tree = _build(modules, category, sizes)
    ranked = sorted(tree, key=lambda path: (-tree[path].bytes, path.count("."), path))
    kept = _fitting(tree, ranked, max_nodes)
    shown = sorted(kept, key=_in_model_order)
    nodes = [_node(tree, path) for path in shown]
    rest = [_rest_of(tree, path, kept) for path in shown]
    return nodes + [node for node in rest if node is not None]


def _build(modules: Names, category: Array, sizes: Array) -> dict[str, _Module]:
    sums = np.zeros((len(modules.names) + 1, len(CATEGORIES)), np.int64)
    np.add.at(sums, (modules.codes, category), sizes)
    tree = {ROOT: _Module(np.zeros(len(CATEGORIES), np.int64))}
    for name, row in zip([*modules.names, ""], sums, strict=True):
        if row.any():
            _add(tree, name, row)
    return tree


def _add(tree: dict[str, _Module], name: str, by_category: Array) -> None:
    """Add a module's bytes to its node and to all above it."""
    parts = name.split(".", _MAX_DEPTH) if name else [NO_MODULE]
    parent = ROOT
    tree[ROOT].by_category += by_category
    for part in parts:
        path = f"{parent}.{part}"
        node = tree.setdefault(path, _Module(np.zeros(len(CATEGORIES), np.int64)))
        node.by_category += by_category
        tree[parent].children.add(path)
        parent = path
    tree[parent].own_bytes += int(by_category.sum())


def _fitting(tree: dict[str, _Module], ranked: list[str], max_nodes: int) -> set[str]:
    """Return the largest paths that fit together with one node "other" for each whose children are cut."""
    count = min(len(ranked), max_nodes)
    while True:
        kept = set(ranked[:count])
        excess = count + sum(1 for path in kept if tree[path].children - kept) - max_nodes
        if excess <= 0 or count <= 1:
            return kept
        count = max(count - excess, 1)


def _in_model_order(path: str) -> list[tuple[int, int, str]]:
    """Return the key that puts a parent before its children and ``h.2`` before ``h.10``."""
    parts = path.split(".")
    return [(1, int(part), "") if part.isascii() and part.isdigit() and len(part) < 10 else (2, 0, part) for part in parts]


def _node(tree: dict[str, _Module], path: str) -> ModuleNode:
    module = tree[path]
    parent, _, label = path.rpartition(".")
    return ModuleNode(path, parent, label, module.bytes, module.own_bytes, _largest([module.by_category]))


def _rest_of(tree: dict[str, _Module], path: str, kept: set[str]) -> ModuleNode | None:
    """Return the node that sums the children of ``path`` that are not kept, if there are any."""
    cut = [tree[child] for child in tree[path].children - kept]
    if not cut:
        return None
    total = sum(module.bytes for module in cut)
    return ModuleNode(f"{path}/other", path, f"other ({len(cut):,})", total, total, _largest(module.by_category for module in cut))


def _largest(sums: Iterable[Array]) -> str:
    return CATEGORIES[int(np.argmax(np.sum(list(sums), axis=0)))].name

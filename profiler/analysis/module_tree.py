"""Blocks with module paths -> a tree of modules with exact sums, cut to as many nodes as a chart can show."""

from __future__ import annotations

from profiler.analysis.columns import Array, Names
from profiler.analysis.tree import MAX_DEPTH, Path, Tree, TreeNode, sums_by_category

NO_MODULE = "(no module)"


def module_nodes(modules: Names, category: Array, sizes: Array, max_nodes: int) -> list[TreeNode]:
    """Return the tree's nodes, the root first, every parent before its children, numbered layers in order.

    Args:
        modules: each block's module path, its parts joined by dots.
        category: each block's category, as codes of `categories.CATEGORIES`.
        sizes: each block's bytes.
        max_nodes: nodes to return at most, 3 or more.
    """
    tree = Tree()
    sums = sums_by_category(modules.codes, len(modules.names), category, sizes)
    for name, row in zip([*modules.names, ""], sums, strict=True):
        if row.any():
            tree.add(name.split(".", MAX_DEPTH) if name else [NO_MODULE], row)
    return tree.nodes(sorted(tree.largest(max_nodes), key=_in_model_order), ".")


def _in_model_order(path: Path) -> list[tuple[int, int, str]]:
    """Return the key that puts a parent before its children and ``h.2`` before ``h.10``."""
    return [(1, int(part), "") if part.isascii() and part.isdigit() and len(part) < 10 else (2, 0, part) for part in path]

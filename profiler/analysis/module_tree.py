"""Blocks with module paths -> a tree of modules with exact sums, cut to as many nodes as a chart can show."""

from __future__ import annotations

import re
from collections.abc import Mapping

from profiler.analysis.columns import Array, Names
from profiler.analysis.tree import MAX_DEPTH, Path, Tree, TreeNode, sums_by_category
from profiler.recording import Metadata

NO_MODULE = "(no module)"
ANY_LAYER = "*"
"""Stands for the number where layers are taken together."""
_WRAPPER, _WRAPPED = ("base_model", "model"), "base_layer"
"""What peft puts before the names of a model's modules, and what it calls a layer inside of an adapter."""
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def module_nodes(modules: Names, category: Array, sizes: Array, max_nodes: int, models: Mapping[str, str]) -> list[TreeNode]:
    """Return the tree's nodes, the root first, every parent before its children, numbered layers in order.

    Args:
        modules: each block's module path, its parts joined by dots.
        category: each block's category, as codes of `categories.CATEGORIES`.
        sizes: each block's bytes.
        max_nodes: nodes to return at most, 3 or more.
        models: for the outermost modules of models, the model's name, under which they are put; see `models_of`.
    """
    tree = Tree()
    sums = sums_by_category(modules.codes, len(modules.names), category, sizes)
    for name, row in zip([*modules.names, ""], sums, strict=True):
        if row.any():
            path = name.split(".", MAX_DEPTH) if name else [NO_MODULE]
            tree.add([models[path[0]], *path] if path[0] in models else path, row)
    return tree.nodes(sorted(tree.largest(max_nodes), key=_in_model_order), ".")


def unwrapped(name: str) -> str:
    """Return the name that a module, or a tensor of it, has without the adapters around it: what peft wraps gets longer names.

    ``base_model.model.layers.0.q.base_layer.weight`` is ``layers.0.q.weight``; the wrapper itself is empty.
    """
    parts = name.split(".")
    if tuple(parts[:2]) == _WRAPPER:
        parts = parts[2:]
    return ".".join(part for part in parts if part != _WRAPPED)


def of_any_layer(name: str) -> str:
    """Return a module's name without the adapters around it and the numbers in it, so that numbered layers share one: ``layers.*.mlp``."""
    return _NUMBER.sub(ANY_LAYER, unwrapped(name))


def models_of(metadata: Metadata) -> dict[str, str]:
    """Return the name of its model for each outermost module, as far as a recording names them; the first of two models has it."""
    layers = metadata.facts.get("layers")
    models: dict[str, str] = {}
    for model, names in layers.items() if isinstance(layers, dict) else ():
        for name in names if isinstance(names, list) else ():
            if isinstance(name, str) and name != model:
                models.setdefault(name, model)
    return models


def _in_model_order(path: Path) -> list[tuple[int, int, str]]:
    """Return the key that puts a parent before its children and ``h.2`` before ``h.10``."""
    return [(1, int(part), "") if part.isascii() and part.isdigit() and len(part) < 10 else (2, 0, part) for part in path]

"""The registry of techniques and of pipelines of them. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping

from profiler.compression.base import Technique
from profiler.compression.catalogue import coding, pruning, quantization, smaller, storage
from profiler.compression.catalogue.pipelines import ALL as _PIPELINES
from profiler.compression.catalogue.pipelines import Pipeline
from profiler.errors import unknown_name

TECHNIQUES: Mapping[str, Technique] = {
    item.name: item for module in (quantization, pruning, storage, smaller, coding) for item in module.TECHNIQUES
}
"""Every technique under its name, kind by kind, in the order in which pages show them."""

PIPELINES: Mapping[str, Pipeline] = {item.name: item for item in _PIPELINES}
"""Techniques in an order that has a name."""


def technique(name: str) -> Technique:
    """Return the technique of this name.

    Raises:
        SpecError: no technique is called so.
    """
    found = TECHNIQUES.get(name.lower().replace("_", "-"))
    if found is None:
        raise unknown_name("technique", name, (*TECHNIQUES, *PIPELINES), f"There are {', '.join((*TECHNIQUES, *PIPELINES))}.")
    return found

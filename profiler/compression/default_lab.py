"""A model of the lab -> the default lab: each technique once, after what it needs, and each pipeline. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping

from profiler.compression.base import Kind, Technique, to_install
from profiler.compression.experiment import Experiment
from profiler.compression.registry import PIPELINES, TECHNIQUES

FIRST = "fine-tune"
"""Done before all others: alone it is the control of every pipeline that has it, which is then not trained again."""
_BEFORE: Mapping[str, tuple[str, ...]] = {
    "store-bsr": ("prune-blocks:amount=0.7",),
    "store-2-4": ("prune-2-4",),
    "fixed": ("k-means",),
    "huffman": ("k-means",),
}
_BEFORE_SPARSE = ("prune-global:amount=0.7",)
"""A share of zeros at which formats differ: some are smaller than dense, others not yet."""


def default_lab(model: str) -> list[Experiment]:
    """Return the experiments, in the order to run them in; those whose packages are not installed are left out."""
    names = sorted(TECHNIQUES, key=lambda name: name != FIRST)
    stages = [(*_before(TECHNIQUES[name]), name) for name in names] + [(name,) for name in PIPELINES]
    experiments = [Experiment.of(model, some) for some in stages]
    return [one for one in experiments if not any(to_install(item.needs) for item in one.techniques)]


def _before(item: Technique) -> tuple[str, ...]:
    """Return what makes a technique mean something: zeros to leave out, shared weights to index."""
    return _BEFORE.get(item.name, _BEFORE_SPARSE if item.kind is Kind.SPARSE_STORAGE else ())

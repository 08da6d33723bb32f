"""What is exported: a text for a file, and what it does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from profiler.optimizations.base import Optimization, Value
from profiler.optimizations.registry import REGISTRY, validate
from profiler.spec import Job

_KEPT_WHERE_NOTHING_CHANGES = ("tied-embeddings", "grouped-query", "packing")
"""What a job says by its model or batch: where one of them is still a toggle, the job was so before."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A job in the words of one tool."""

    tool: str
    filename: str
    language: str
    """As syntax highlighting calls it."""
    text: str
    missing: tuple[str, ...] = ()
    """Sentences: what of the job it does not say."""


def switched_on(job: Job) -> dict[str, Mapping[str, Value]]:
    """Return a value for every option of every optimization that a job runs with, by name, in the order in which they are applied.

    Raises:
        SpecError: the job is not possible.
    """
    toggles = {toggle.name: dict(toggle.options) for toggle in validate(job).toggles}
    return {
        name: item.read_options(toggles[name])
        for name, item in REGISTRY.items()
        if name in toggles and name not in _KEPT_WHERE_NOTHING_CHANGES
    }


def is_said_by_job(item: Optimization) -> bool:
    """Return whether an optimization is only another way to write a field of the job, and so never among its toggles."""
    return type(item).rewrite is not Optimization.rewrite


def not_said(name: str, tool: str) -> str:
    """Return the sentence for an optimization that a tool has no setting for."""
    return f"{name}: {tool} has no setting for it that is known here. The PyTorch script may have it."

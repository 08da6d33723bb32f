"""The models of the lab: what pages and keys need of each without torch, and each as a `Task`, with torch, for workers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiler.errors import unknown_name

if TYPE_CHECKING:
    from profiler.compression.task import Task


@dataclass(frozen=True, kw_only=True)
class LabModel:
    """A model with something to lose."""

    name: str
    label: str
    explanation: str
    """One paragraph: what it is, on what it was trained, what it is good for showing."""
    fingerprint: Callable[[], str]
    """A digest of its weights, found without loading them."""
    code: str
    """``module:function`` below ``profiler.compression.lab``, which returns the task."""
    needs: tuple[str, ...] = ()
    """Packages that must be installed."""


MODELS: Mapping[str, LabModel] = {}
"""By name, in the order in which pages show them."""


def load(name: str) -> Task:
    """Return a model of the lab; loads torch.

    Raises:
        SpecError: no model is called so.
    """
    found = MODELS.get(name)
    if found is None:
        raise unknown_name("model of the lab", name, MODELS, f"There are {', '.join(MODELS)}.")
    module, _, function = found.code.partition(":")
    task: Task = getattr(importlib.import_module(f"profiler.compression.lab.{module}"), function)()
    return task

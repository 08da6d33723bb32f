"""What the benchmark published: of an experiment on a model of the lab, bytes, loss and time beside the untouched model's. Loads no torch.

`python -m benchmarks.compression --publish` writes it together with the page of results, from the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from profiler.compression.base import Kind
from profiler.compression.experiment import Experiment
from profiler.compression.registry import technique
from profiler.spec import Toggle

PATH = Path(__file__).with_name("published.json")
Stages = tuple[Toggle, ...]


@dataclass(frozen=True, kw_only=True)
class Published:
    """One experiment, the mean of its seeds."""

    loss_gain: float
    """Nats per unit more than the untouched model's."""
    time_ratio: float | None
    """Of the untouched model's forward pass; None where this form of the same weights was not timed."""
    held_share: float | None = None
    """Share of the untouched model's; None where this form of the same weights was not counted."""
    file_share: float | None = None


def find(model: str, stages: Stages) -> Published | None:
    """Return what was published of techniques on a model; None where it is nothing.

    What only writes the same weights in another way loses what they lose: coders, which leave the running model alone, and sparse storage,
    which takes another time.
    """
    rows = _rows(model)
    if stages in rows:
        return rows[stages]
    uncoded = _without(stages, Kind.CODING)
    alike = {_without(known, Kind.CODING): row for known, row in reversed(list(rows.items()))}
    if uncoded in alike:
        return replace(alike[uncoded], held_share=None, file_share=None)
    dense = alike.get(_without(uncoded, Kind.SPARSE_STORAGE))
    return None if dense is None else Published(loss_gain=dense.loss_gain, time_ratio=None)


@cache
def _rows(model: str) -> Mapping[Stages, Published]:
    """Return what was published of a model, by the techniques."""
    texts = json.loads(PATH.read_text(encoding="utf-8")).get(model, {})
    return {Experiment.of(model, tuple(text.split(" + "))).stages: Published(**row) for text, row in texts.items()}


def _without(stages: Stages, kind: Kind) -> Stages:
    return tuple(stage for stage in stages if technique(stage.name).kind is not kind)

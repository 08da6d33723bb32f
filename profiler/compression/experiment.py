"""An experiment as data: a model of the lab and techniques in order -> frozen, hashable, JSON both ways."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

from profiler.compression.base import Kind, Technique
from profiler.compression.registry import PIPELINES, TECHNIQUES, technique
from profiler.errors import SpecError
from profiler.spec import Toggle, canonical_json

MAX_STAGES = 12
MAX_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is done to which model. No stages: the model as it is.

    Raises:
        SpecError: a technique or option is not known or not possible, or the order of the techniques cannot be.
    """

    model: str
    """A name of the lab's models."""
    stages: tuple[Toggle, ...] = ()
    """Techniques in the order in which they are applied, each ``NAME`` or ``NAME:key=value``; canonical once the experiment exists."""
    seed: int = 0
    by_layer: bool = False
    """Also apply the first technique to each matrix alone, and tell the loss of each."""

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed <= MAX_SEED:
            raise SpecError(f"seed={self.seed!r} is not possible. Use a whole number from 0 to {MAX_SEED:,}.")
        stages = tuple(map(_canonical, _unfolded(self.stages)))
        if len(stages) > MAX_STAGES:
            raise SpecError(f"{len(stages)} techniques are too many for one experiment. Use at most {MAX_STAGES}.")
        _check_order([technique(stage.name) for stage in stages])
        if self.by_layer and not (stages and technique(stages[0].name).by_layer):
            able = ", ".join(item.name for item in TECHNIQUES.values() if item.by_layer)
            raise SpecError(f"{self.technique} cannot be applied matrix by matrix. These can, as the first technique: {able}.")
        object.__setattr__(self, "stages", stages)

    @classmethod
    def of(cls, model: str, names: tuple[str, ...], amount: str | None = None, seed: int = 0, *, by_layer: bool = False) -> Self:
        """Return the experiment of techniques as users write them.

        Args:
            model: a name of the lab's models.
            names: each ``NAME``, ``NAME:key=value,key=value`` or a pipeline's name.
            amount: for the first technique that has one; None: its default.
            seed: of everything random.
            by_layer: as in `Experiment`.

        Raises:
            SpecError: as `Experiment`; or no technique takes an amount.
        """
        stages = _unfolded(tuple(map(Toggle.parse, names)))
        stages = stages if amount is None else _with_amount(stages, amount)
        return cls(model=model, stages=stages, seed=seed, by_layer=by_layer)

    @property
    def id(self) -> str:
        """The content hash: 16 hexadecimal digits, equal for equal experiments."""
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()[:16]

    @property
    def technique(self) -> str:
        """The techniques in one line, such as ``prune-global:amount=0.7 + k-means``."""
        return " + ".join(map(str, self.stages)) or "none"

    @property
    def title(self) -> str:
        """One line, such as ``lab · int8-weight-only``; a seed other than 0 is said."""
        return " · ".join([self.model, self.technique, *([f"seed={self.seed}"] if self.seed else [])])

    @property
    def techniques(self) -> tuple[Technique, ...]:
        """The technique of each stage."""
        return tuple(technique(stage.name) for stage in self.stages)

    @property
    def controls(self) -> dict[str, Experiment]:
        """Of each training that follows another technique, the experiment that trains the untouched model in the same way."""
        stages = zip(self.stages[1:], self.techniques[1:], strict=True)
        return {str(stage): replace(self, stages=(stage,), by_layer=False) for stage, item in stages if item.kind is Kind.TRAINING}

    def to_json(self) -> dict[str, Any]:
        """Return plain data; stages as their texts."""
        data = {"model": self.model, "stages": [str(stage) for stage in self.stages], "seed": self.seed}
        return data | {"by_layer": True} if self.by_layer else data

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Return the experiment that plain data describes.

        Raises:
            SpecError: the data is not an experiment.
        """
        try:
            stages = tuple(map(Toggle.parse, data.get("stages", ())))
            return cls(model=str(data["model"]), stages=stages, seed=data.get("seed", 0), by_layer=bool(data.get("by_layer")))
        except (TypeError, KeyError, AttributeError) as error:
            raise SpecError("This is not an experiment: an object with a model and stages is expected, as results hold it.") from error


def _unfolded(stages: tuple[Toggle, ...]) -> tuple[Toggle, ...]:
    """Return the stages with the stages of a pipeline in place of its name."""
    unfolded: list[Toggle] = []
    for stage in stages:
        pipeline = PIPELINES.get(stage.name.lower())
        if pipeline is None:
            unfolded.append(stage)
        elif stage.options:
            raise SpecError(f"{stage.name} is several techniques and takes no options. Name them one by one: {' '.join(pipeline.stages)}.")
        else:
            unfolded.extend(map(Toggle.parse, pipeline.stages))
    return tuple(unfolded)


def _canonical(stage: Toggle) -> Toggle:
    """Return a stage with its technique's own name, and only those options that are not the default."""
    item = technique(stage.name)
    values = item.read_options(dict(stage.options))
    options = ((p.name, p.write(values[p.name])) for p in item.parameters if values[p.name] != p.default)
    return Toggle(item.name, tuple(sorted(options)))


def _with_amount(stages: tuple[Toggle, ...], amount: str) -> tuple[Toggle, ...]:
    for index, stage in enumerate(stages):
        name = technique(stage.name).amount
        if name is not None:
            options = tuple(sorted((dict(stage.options) | {name: amount}).items()))
            return (*stages[:index], Toggle(stage.name, options), *stages[index + 1 :])
    able = ", ".join(item.name for item in TECHNIQUES.values() if item.amount)
    raise SpecError(f"None of {', '.join(map(str, stages)) or 'the techniques'} takes an amount. These do: {able}.")


def _check_order(items: list[Technique]) -> None:
    """Refuse what needs plain weights after what replaces them, and a new model after work on the old one."""
    for before, after in pairwise(items):
        if after.first:
            raise SpecError(f"{after.name} makes a new model, so what {before.name} did would be lost. Put {after.name} first.")
        if before.kind is Kind.CODING:
            raise SpecError(f"{after.name} cannot follow {before.name}, which writes the file. Put {before.name} last.")
        if before.kind in (Kind.QUANTIZATION, Kind.SPARSE_STORAGE) and after.kind is not Kind.CODING:
            raise SpecError(f"{after.name} needs plain weights, which {before.name} replaces. Put {after.name} before {before.name}.")

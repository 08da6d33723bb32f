"""What an optimization applies to and what it does not go with, declared -> why a job cannot have it, as a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from profiler.models.catalogue import facts_of
from profiler.models.config import Head
from profiler.spec import Job, Toggle, WorkloadKind

Values = Mapping[str, Mapping[str, Any]]
"""What is switched on: for every name a value for each option."""
TRANSFORMERS = frozenset(Head) - {Head.RECURRENT}
"""Models whose layers are transformers'."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What an optimization applies to, beside the workloads of its family."""

    part: str
    """What of a model or its run it changes."""
    heads: frozenset[Head] = frozenset(Head)
    """The kinds of model that have such a part."""
    on_cpu: bool = True
    on_gpu: bool = True

    def refusal(self, name: str, job: Job) -> str | None:
        """Return why a job cannot have the optimization of this name, None where it can."""
        head = facts_of(job.model).head
        if head not in self.heads:
            return f"{name} applies to {self}, and {job.model.name} is {head}. Choose another model, or switch it off."
        if job.device == "cpu" and not self.on_cpu:
            return f"{name} applies to {self}, and the device is cpu. Choose a GPU, or switch it off."
        if job.device != "cpu" and not self.on_gpu:
            return f"{name} applies to {self}, and the device is {job.device}. Choose the device cpu, or switch it off."
        return None

    def to_json(self) -> dict[str, Any]:
        """Return plain data that describes it."""
        devices = [name for name, runs in (("cpu", self.on_cpu), ("gpu", self.on_gpu)) if runs]
        return {"part": self.part, "models": sorted(map(str, self.heads)), "devices": devices}

    def __str__(self) -> str:
        kinds = {frozenset(Head): "", TRANSFORMERS: " of transformers"}.get(self.heads, f" of {any_of(sorted(self.heads))} models")
        place = "" if self.on_cpu and self.on_gpu else " on GPUs" if self.on_gpu else " on CPUs"
        return f"{self.part}{kinds}{place}"


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Why one optimization, which declares it, does not go with others: with each of them alone."""

    others: tuple[str, ...]
    why: str
    """One sentence, without a capital or a period."""
    instead: str = ""
    """A way out beside switching one of the two off."""
    unless: tuple[str, ...] = ()
    """Toggles, with options, any of which resolves it."""
    workloads: frozenset[WorkloadKind] = frozenset(WorkloadKind)
    """In which it matters."""
    on_cpu: bool = True
    """Whether it matters there, too."""

    def refusal(self, name: str, job: Job, switched_on: Values) -> str | None:
        """Return why a job cannot have the optimization of this name, which declares it; None where it does not matter or none is on."""
        other = next((other for other in self.others if other in switched_on), None)
        if other is None or job.workload.kind not in self.workloads or (job.device == "cpu" and not self.on_cpu):
            return None
        if any(_is_on(Toggle.parse(text), switched_on) for text in self.unless):
            return None
        instead = self.instead or (f"Use {self.unless[0]}" if self.unless else "")
        way_out = f"{instead}, or switch one of them off." if instead else "Switch one of them off."
        return f"{name} and {other} do not go together: {self.why}. {way_out}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data that describes it, but for whom it is with."""
        devices = ["cpu", "gpu"] if self.on_cpu else ["gpu"]
        return {"why": self.why, "unless": list(self.unless), "workloads": sorted(map(str, self.workloads)), "devices": devices}

    def sentence(self, names: tuple[str, ...]) -> str:
        """Return that what declares it or is declared does not go with these, when, and why."""
        kinds = "" if self.workloads == frozenset(WorkloadKind) else f" in {any_of(sorted(self.workloads))}"
        place = "" if self.on_cpu else " on GPUs"
        unless = f", unless {any_of(self.unless)} is on" if self.unless else ""
        return f"Not with {any_of(names)}{kinds}{place}{unless}: {self.why}."


def any_of(words: Sequence[str]) -> str:
    """Return words as a list to choose from: ``a, b or c``."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _is_on(toggle: Toggle, switched_on: Values) -> bool:
    """Tell whether a toggle is on with these options, whatever its others are."""
    values = switched_on.get(toggle.name)
    return values is not None and all(str(values.get(name)).lower() == value for name, value in toggle.options)

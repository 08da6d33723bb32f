"""A simulated job -> the nearest run that the simulation was held against on a real GPU, and what differs between the two.

A prediction is only as good as what like it was measured; this is said beside every one of them, so that nobody reads more into it.
The table is written by ``python -m benchmarks.gpu_runs FILE --write``, never by hand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from profiler.models.catalogue import facts_of
from profiler.optimizations import optimizers, precision
from profiler.optimizations.registry import families, validate
from profiler.spec import Job

TABLE = Path(__file__).with_name("validated.json")
_WEIGHTS = {
    "architecture": 8,
    "workload": 8,
    "quantization": 8,
    "model_type": 4,
    "attention": 4,
    "precision": 4,
    "optimizer": 2,
    "lora": 2,
    "checkpointing": 2,
    "gpu": 2,
    "transformers": 1,
    "torch": 1,
    "model": 1,
    "shape": 1,
}
"""How much a difference says against a run as evidence; only the order of runs depends on it."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A run that was measured on a real GPU and simulated."""

    id: str
    source: str
    traits: dict[str, str]
    """What it was, by the names in ``_WEIGHTS``."""
    differences: dict[str, int]
    """Predicted minus measured bytes, by quantity."""
    measured_bytes: int
    """Its peak in all."""

    @property
    def sentence(self) -> str:
        """Say how well the run was predicted."""
        worst = max(self.differences.values(), key=abs)
        if not worst:
            found = "every quantity equal to the byte"
        else:
            found = f"off by at most {abs(worst):,} B ({abs(worst) / self.measured_bytes:.2%} of its peak)"
        words = [self.traits[name] for name in ("model", "gpu", "workload", "precision", "attention", "optimizer")]
        return f"{', '.join(word for word in words if word != 'none')}: {found}."


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The run that is most like a job, and in what they differ."""

    evidence: Evidence
    differs: dict[str, tuple[str, str]]
    """By trait: of the validated run, of the job."""

    def sentences(self) -> list[str]:
        """Return both in words."""
        if not self.differs:
            return [f"Validated against {self.evidence.sentence}", "Nothing that matters differs from that run but the batch."]
        parts = [f"{name.replace('_', ' ')} {there} there, {here} here" for name, (there, here) in self.differs.items()]
        return [f"The nearest validated run is {self.evidence.sentence}", f"What differs: {'; '.join(parts)}."]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "id": self.evidence.id,
            "source": self.evidence.source,
            "traits": self.evidence.traits,
            "differences_bytes": self.evidence.differences,
            "differs": {name: {"validated": there, "here": here} for name, (there, here) in self.differs.items()},
            "sentences": self.sentences(),
        }


@cache
def evidence() -> tuple[Evidence, ...]:
    """Return all runs that the simulation was held against."""
    return tuple(Evidence(**row) for row in json.loads(TABLE.read_text(encoding="utf-8")))


def nearest_run(job: Job, architecture: str, versions: dict[str, str]) -> Nearest:
    """Return the validated run that is most like a simulated job.

    Args:
        job: on a GPU of the catalogue.
        architecture: of that GPU.
        versions: of the libraries that it was simulated with.
    """
    here = traits_of(job, architecture, versions)
    return min((_difference(run, here) for run in evidence()), key=lambda found: sum(_WEIGHTS[name] for name in found.differs))


def _difference(run: Evidence, here: dict[str, str]) -> Nearest:
    differs = {name: (run.traits[name], here[name]) for name in _WEIGHTS if run.traits[name].lower() != here[name].lower()}
    return Nearest(evidence=run, differs=differs)


def traits_of(job: Job, architecture: str, versions: dict[str, str]) -> dict[str, str]:
    """Return what runs are compared by; the arguments are those of `nearest_run`."""
    job = validate(job)
    toggles = {toggle.name: dict(toggle.options) for toggle in job.toggles}
    return {
        "model": job.model.name,
        "model_type": facts_of(job.model).model_type,
        "gpu": job.device,
        "architecture": architecture,
        "workload": job.workload.kind.value,
        "shape": f"{job.workload.batch} x {job.workload.seq}",
        "precision": _one_of(toggles, families()[precision.PRECISION], "float32"),
        "attention": "eager" if "eager" in toggles else "sdpa",
        "optimizer": _one_of(toggles, optimizers.OPTIMIZATIONS, "none"),
        "checkpointing": "yes" if "checkpointing" in toggles else "no",
        "lora": "yes" if "lora" in toggles else "no",
        "quantization": "none",
        "torch": _short(versions.get("torch", "")),
        "transformers": _short(versions.get("transformers", "")),
    }


def _one_of(toggles: dict[str, Any], family: tuple[Any, ...], default: str) -> str:
    return next((item.name for item in family if item.name in toggles), default)


def _short(version: str) -> str:
    """Return the first two numbers of a version."""
    return ".".join(version.partition("+")[0].split(".")[:2])

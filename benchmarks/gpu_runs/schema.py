"""Files of runs that were recorded on real GPUs, and what a comparison with one of their runs says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from profiler.devices import Gpu, find_gpu

_MODEL_TYPES = {"Qwen3": "qwen3", "Qwen2": "qwen2", "Mistral": "mistral"}

Run = dict[str, Any]
"""One recorded run, as its file says it."""


@dataclass(frozen=True, slots=True)
class Spread:
    """What a quantity is in loads of one model that differ by their threads' luck, and how many of them give what was measured."""

    lowest: int
    highest: int
    num_equal: int
    num_loads: int

    def holds(self, measured: int) -> bool:
        """Return whether what was measured is among what is possible."""
        return self.lowest <= measured <= self.highest


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was predicted for a run and what was measured."""

    run: Run
    predicted: dict[str, int]
    """Bytes by the name of the quantity, such as ``peak``."""
    measured: dict[str, int]
    """Bytes of the same quantities."""
    allowed: dict[str, int]
    """How many bytes a prediction may be off, by quantity."""
    seconds: float
    """Wall-clock time of the simulation."""
    rules: tuple[str, ...] = ()
    """What of the recorded library versions was modelled although the installed ones do otherwise."""
    explanation: str = ""
    """Why a byte is left over, where one is."""
    spreads: dict[str, Spread] = field(default_factory=dict)
    """By quantity, where it is not the same in every load; predicted is the median then."""

    @property
    def differences(self) -> dict[str, int]:
        """Predicted minus measured bytes."""
        return {name: self.predicted[name] - measured for name, measured in self.measured.items()}

    @property
    def missed(self) -> list[str]:
        """Quantities that are further off than allowed, and not among what is possible either."""
        return [name for name in self.off if name not in self.spreads or not self.spreads[name].holds(self.measured[name])]

    @property
    def off(self) -> list[str]:
        """Quantities that are further off than allowed."""
        return [name for name, difference in self.differences.items() if abs(difference) > self.allowed[name]]

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON-ready data."""
        differences = {f"{name}_diff_bytes": difference for name, difference in self.differences.items()}
        return {
            "id": self.run["id"],
            **differences,
            "seconds": round(self.seconds, 2),
            "rules": list(self.rules),
            "explanation": self.explanation,
            "spreads": {f"{name}_bytes": asdict(spread) for name, spread in self.spreads.items()},
        }


def read_runs(path: Path) -> list[Run]:
    """Return the runs of a file."""
    runs: list[Run] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return runs


def gpu_of(run: Run) -> Gpu:
    """Return the card of a run, found in the catalogue by the name that torch reported."""
    return find_gpu(run["gpu"].partition(" (")[0])


def model_type(name: str) -> str:
    """Return transformers' type of a model that a run names; most are of Llama's kind."""
    family = name.rpartition("/")[2]
    return next((kind for prefix, kind in _MODEL_TYPES.items() if family.startswith(prefix)), "llama")


def is_before(run: Run, library: str, version: tuple[int, ...]) -> bool:
    """Return whether a run used a version of a library older than ``version``."""
    numbers = run["versions"][library].partition("+")[0].split(".")
    return tuple(int(number) for number in numbers[: len(version)]) < version

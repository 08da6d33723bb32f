"""A job and a GPU -> the largest batch, or the longest sequence, that fits there, each candidate simulated whole and judged.

Memory is found by simulation and never by a formula: a straight line through what was simulated only chooses the next candidate, so that a
handful of simulations is enough.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isqrt
from pathlib import Path
from typing import Any

from profiler.analysis.fit import Fit, Verdict, judge_fit
from profiler.devices import Gpu
from profiler.models.catalogue import facts_of
from profiler.recording import Recording
from profiler.spec import MAX_BATCH, MAX_SEQ, Job, WorkloadKind
from profiler.storage import read_recording

SEQ_STEP = 64
"""Sequence lengths are tried in multiples of this, as kernels like them."""
MAX_SIMULATIONS = 24

_NAMES = {"batch": ("batch", "largest"), "seq": ("sequence", "longest")}
"""What people call a field of the workload, and more of it."""

Simulate = Callable[[Job], Recording]


class Bound(StrEnum):
    """Why nothing larger is the answer; the value goes on from "because"."""

    MEMORY = "the next one does not certainly fit"
    POSITIONS = "the model has no more positions"
    SEARCH = "nothing larger is tried"
    SIMULATIONS = "no more simulations were allowed"


@dataclass(frozen=True)
class Probe:
    """One candidate that was simulated."""

    value: int
    verdict: Verdict

    @property
    def fits(self) -> bool:
        """Whether it certainly fits."""
        return self.verdict.kind is Fit.FITS


@dataclass(frozen=True, kw_only=True)
class Largest:
    """What was found. Simulated, so a prediction."""

    what: str
    """``batch`` or ``seq``."""
    gpu: Gpu
    value: int | None
    """The largest that certainly fits; None if not even the smallest does."""
    step: int
    """Candidates are multiples of this."""
    bound: Bound
    probes: tuple[Probe, ...]
    """What was simulated, in that order."""

    @property
    def next_probe(self) -> Probe | None:
        """The smallest candidate that was found not to fit for certain, if any."""
        return min((probe for probe in self.probes if not probe.fits), key=lambda probe: probe.value, default=None)

    def sentences(self) -> list[str]:
        """Return the result in words."""
        (name, most), after = _NAMES[self.what], self.next_probe
        if self.value is None:
            head = f"Not even {name} {self._smallest():,} fits on {self.gpu.label}."
        else:
            head = f"The {most} {name} that fits on {self.gpu.label} is {self.value:,}, because {self.bound.value}."
        return [head] if after is None else [head, f"At {name} {after.value:,}: {after.verdict.sentences()[0]}"]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        tried = [
            {"value": probe.value, "verdict": probe.verdict.kind.value, "peak_reserved_bytes": probe.verdict.reserved_bytes}
            for probe in self.probes
        ]
        return {
            "what": self.what,
            "gpu": self.gpu.name,
            "value": self.value,
            "step": self.step,
            "bound": self.bound.name.lower(),
            "simulated": tried,
            "sentences": self.sentences(),
        }

    def _smallest(self) -> int:
        return min(probe.value for probe in self.probes)


def largest_batch(
    job: Job,
    gpu: Gpu,
    *,
    simulate: Simulate | None = None,
    progress: Callable[[Probe], None] | None = None,
    max_simulations: int = MAX_SIMULATIONS,
) -> Largest:
    """Return the largest batch with which a job fits on a GPU; with micro-batches, a multiple of their number.

    Args:
        job: its batch is where the search begins; its device and its numbers of steps do not count.
        gpu: the card, which the job has alone.
        simulate: returns the recording of a job; by default it is simulated in this process, which takes torch.
        progress: is told of every candidate that was simulated. What it raises ends the search.
        max_simulations: how many candidates may be simulated.

    Raises:
        SpecError: the job is not possible.
        SimulationUnsupported: something in it cannot be simulated.
    """
    step = job.workload.micro_batches
    search = _Search("batch", job, gpu, step, MAX_BATCH // step * step, Bound.SEARCH)
    return search.run(simulate or _simulated, progress, max_simulations)


def longest_sequence(
    job: Job,
    gpu: Gpu,
    *,
    simulate: Simulate | None = None,
    progress: Callable[[Probe], None] | None = None,
    max_simulations: int = MAX_SIMULATIONS,
) -> Largest:
    """Return the longest sequence with which a job fits on a GPU, up to the model's positions; for decode, the longest prompt.

    Args, raises: as `largest_batch`.
    """
    positions = facts_of(job.model).max_positions
    made = job.workload.new_tokens if job.workload.kind is WorkloadKind.DECODE else 0
    limit, bound = (MAX_SEQ, Bound.SEARCH) if positions is None else (max(positions - made, 1), Bound.POSITIONS)
    return _Search("seq", job, gpu, SEQ_STEP, limit, bound).run(simulate or _simulated, progress, max_simulations)


class _Search:
    """Candidates by number: 1 is the smallest; all below `_low` fit, all from `_high` on do not."""

    def __init__(self, what: str, job: Job, gpu: Gpu, step: int, limit: int, bound: Bound) -> None:
        self._what, self._job, self._gpu, self._step, self._limit, self._bound = what, job, gpu, step, limit, bound
        self._low, self._high = 0, -(-limit // step) + 1
        self._probes: list[Probe] = []
        self._widths: list[int] = []

    def run(self, simulate: Simulate, progress: Callable[[Probe], None] | None, max_simulations: int) -> Largest:
        number = min(max(getattr(self._job.workload, self._what) // self._step, 1), self._high - 1)
        while self._high - self._low > 1 and len(self._probes) < max_simulations:
            probe = Probe(self._value(number), judge_fit(simulate(self._candidate(number)), self._gpu))
            self._probes.append(probe)
            if probe.fits:
                self._low = number
            else:
                self._high = number
            self._widths.append(self._high - self._low)
            if progress is not None:
                progress(probe)
            number = self._next()
        return Largest(
            what=self._what,
            gpu=self._gpu,
            value=self._value(self._low) if self._low else None,
            step=self._step,
            bound=self._stopped_by(),
            probes=tuple(self._probes),
        )

    def _stopped_by(self) -> Bound:
        if self._high - self._low > 1:
            return Bound.SIMULATIONS
        return Bound.MEMORY if any(not probe.fits for probe in self._probes) else self._bound

    def _value(self, number: int) -> int:
        return min(number * self._step, self._limit)

    def _candidate(self, number: int) -> Job:
        warmup_steps = 1 if self._job.workload.kind is WorkloadKind.TRAIN else 0  # it makes the optimizer's state
        changed: dict[str, Any] = {self._what: self._value(number), "steps": 1, "warmup_steps": warmup_steps}
        return replace(self._job, device=self._gpu.name, workload=replace(self._job.workload, **changed))

    def _next(self) -> int:
        """Return the candidate to try next."""
        guess = self._by_line() if len(self._probes) > 1 else None
        if all(probe.fits for probe in self._probes):
            guess = max(guess or self._low * 4, self._low + max(self._low // 4, 1))
        elif guess is None or not self._is_halving():
            guess = isqrt(max(self._low, 1) * self._high)  # whether the answer is near 10 or near 10,000 counts alike
        return min(max(guess, self._low + 1), self._high - 1)

    def _is_halving(self) -> bool:
        """Tell whether the last candidate halved what is left: where the line does not, every second candidate does."""
        return len(self._widths) < 2 or self._widths[-1] * 2 <= self._widths[-2]

    def _by_line(self) -> int | None:
        """Return the last candidate below the GPU's memory on the line through the two that are nearest to it; None if it does not rise."""
        verdict = self._probes[-1].verdict
        room_bytes = self._gpu.memory_bytes - verdict.band.high_bytes
        near = sorted(self._probes, key=lambda probe: abs(probe.verdict.reserved_bytes - room_bytes))[:2]
        one, other = sorted(near, key=lambda probe: probe.value)
        slope = (other.verdict.reserved_bytes - one.verdict.reserved_bytes) / (other.value - one.value)
        if slope <= 0:
            return None
        value = one.value + (room_bytes - one.verdict.reserved_bytes) / slope
        return int(value // self._step)


def _simulated(job: Job) -> Recording:
    simulate_job = importlib.import_module("profiler.simulate.engine").simulate_job
    with tempfile.TemporaryDirectory(prefix="headroom-") as folder:
        path = Path(folder) / "probe.headroom"
        simulate_job(job, path)
        return read_recording(path)

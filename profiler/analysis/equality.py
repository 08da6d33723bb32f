"""Two recordings of one job, measured and simulated -> where they differ, in bytes: at every phase, at the peak, in every category."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from profiler.analysis.measured_only import measured_only
from profiler.analysis.timeline import Timeline
from profiler.errors import SpecError
from profiler.recording import Category, Recording


class Pair(NamedTuple):
    """One quantity, in bytes."""

    measured: int
    simulated: int

    @property
    def difference(self) -> int:
        """Simulated minus measured."""
        return self.simulated - self.measured


@dataclass(frozen=True, kw_only=True)
class PhasePair:
    """One phase of one step."""

    step: int
    """-1 before the first."""
    phase: str
    end: Pair
    """Allocated when it ends."""
    peak: Pair
    """The most allocated in it."""


@dataclass(frozen=True, kw_only=True)
class Equality:
    """What differs between a measured and a simulated recording of one job."""

    phases: tuple[PhasePair, ...]
    peak: Pair
    categories: dict[Category, Pair]
    """At the peak."""
    measured_only: dict[str, int]
    """By how many bytes each mechanism that no simulation has raises the measured peak, by its name."""

    @property
    def largest_difference(self) -> int:
        """Bytes by which anything differs at most."""
        pairs = [pair for phase in self.phases for pair in (phase.end, phase.peak)]
        return max(abs(pair.difference) for pair in (self.peak, *pairs, *self.categories.values()))

    def to_json(self) -> dict[str, Any]:
        """Return plain data; every pair as measured_bytes, simulated_bytes and difference_bytes."""
        return {
            "peak": _pair_json(self.peak),
            "measured_only_bytes": self.measured_only,
            "categories_at_peak": {category.name: _pair_json(pair) for category, pair in self.categories.items()},
            "phases": [
                {"step": phase.step, "phase": phase.phase, "end": _pair_json(phase.end), "peak": _pair_json(phase.peak)}
                for phase in self.phases
            ],
            "largest_difference_bytes": self.largest_difference,
        }


def compare_recordings(measured: Recording, simulated: Recording) -> Equality:
    """Return where two recordings of one job differ.

    Raises:
        SpecError: they do not have the same phases, so they are not of one job.
    """
    lines = Timeline.of(measured), Timeline.of(simulated)
    phases = [_phases(recording, line) for recording, line in zip((measured, simulated), lines, strict=True)]
    if [phase[:2] for phase in phases[0]] != [phase[:2] for phase in phases[1]]:
        raise SpecError("These recordings went through different phases. Compare two recordings of one job.")
    at_peak = [line.categories_at(line.peak_event) for line in lines]
    return Equality(
        phases=tuple(
            PhasePair(step=real[0], phase=real[1], end=Pair(real[2], fake[2]), peak=Pair(real[3], fake[3]))
            for real, fake in zip(*phases, strict=True)
        ),
        peak=Pair(*(line.peak_bytes for line in lines)),
        categories={
            category: Pair(*(found.get(category, 0) for found in at_peak))
            for category in Category
            if any(category in found for found in at_peak)
        },
        measured_only=measured_only(measured, lines[0]),
    )


def _phases(recording: Recording, line: Timeline) -> list[tuple[int, str, int, int]]:
    """Return step, phase, bytes at its end and the most bytes in it, in the order of time."""
    times, total = line.blocks.event_us, line.total
    found = []
    for mark in recording.marks.to_pylist():
        if mark["kind"] != "phase":
            continue
        first = int(np.searchsorted(times, mark["start_us"], side="left"))
        last = int(np.searchsorted(times, mark["end_us"], side="right"))
        end = int(total[last - 1]) if last else 0
        found.append((mark["step"], mark["name"], end, max(end, int(total[first:last].max(initial=0)))))
    return found


def _pair_json(pair: Pair) -> dict[str, int]:
    return {"measured_bytes": pair.measured, "simulated_bytes": pair.simulated, "difference_bytes": pair.difference}

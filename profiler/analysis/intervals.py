"""Marks -> named intervals, and the end of the interval that each block was born in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from profiler.analysis.categories import PHASE_CODES
from profiler.analysis.columns import Array, read_names, read_numbers


@dataclass(frozen=True)
class Interval:
    """A named stretch of a recording: a step, a phase or a user's region."""

    kind: str
    name: str
    start_us: float
    end_us: float
    step: int


def read_intervals(marks: pa.Table, kind: str, rank: int) -> tuple[Interval, ...]:
    """Return the marks of one kind on one rank in the order they begin."""
    kinds, names = read_names(marks["kind"]).texts(), read_names(marks["name"]).texts()
    starts, ends = read_numbers(marks["start_us"]), read_numbers(marks["end_us"])
    steps, ranks = read_numbers(marks["step"], -1), read_numbers(marks["rank"])
    chosen = np.flatnonzero((kinds == kind) & (ranks == rank))
    ordered = chosen[np.argsort(starts[chosen], kind="stable")]
    return tuple(Interval(kind, str(names[i]), float(starts[i]), float(ends[i]), int(steps[i])) for i in ordered)


def phase_ends(marks: pa.Table, time_us: Array, rank: Array, phase: Array) -> Array:
    """Return the end of the phase interval that each instant lies in; infinite where no interval of its phase holds it.

    Args:
        marks: the recording's marks.
        time_us: instants, microseconds.
        rank: their ranks.
        phase: their phases, as codes of `categories.PHASES`.
    """
    ends = np.full(len(time_us), np.inf)
    for one_rank in np.unique(rank):
        intervals = read_intervals(marks, "phase", int(one_rank))
        for name in {interval.name for interval in intervals} & PHASE_CODES.keys():
            same = [interval for interval in intervals if interval.name == name]
            starts = np.array([interval.start_us for interval in same])
            stops = np.array([interval.end_us for interval in same])
            rows = np.flatnonzero((rank == one_rank) & (phase == PHASE_CODES[name]))
            place = np.searchsorted(starts, time_us[rows], side="right") - 1
            inside = (place >= 0) & (time_us[rows] <= stops[place])
            ends[rows[inside]] = stops[place[inside]]
    return ends

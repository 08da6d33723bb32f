"""Sampled readings of a recording -> one series a metric, reduced to what a chart can show with its peak kept."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.analysis.columns import Array
from profiler.recording import Recording


@dataclass(frozen=True, eq=False)
class Series:
    """One metric's readings on one device."""

    source: str
    metric: str
    device: int
    time_us: Array
    values: Array
    num_samples: int
    """Readings before the reduction."""

    @property
    def label(self) -> str:
        """What people call it, such as ``Resident set`` or ``GPU 0 used``."""
        raise NotImplementedError


def read_series(recording: Recording, max_points: int = 1_000) -> list[Series]:
    """Return every metric that was sampled, memory first; of each, at most ``max_points`` readings with the extremes kept."""
    raise NotImplementedError


def memory_series(recording: Recording, max_points: int = 1_000) -> list[Series]:
    """Return the series in bytes that can be laid over a timeline."""
    raise NotImplementedError

"""Sampled readings of a recording -> one series a metric, reduced to what a chart can show with its extremes kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profiler.analysis.columns import Array, read_names, read_numbers
from profiler.analysis.reduction import pick_extremes
from profiler.recording import Recording

_LABELS = {
    "rss_bytes": "Resident set",
    "uss_bytes": "Unique set",
    "swap_bytes": "Swap",
    "children_rss_bytes": "Children's resident set",
    "device_used_bytes": "device used",
    "device_free_bytes": "device free",
    "device_total_bytes": "device total",
    "process_used_bytes": "this process",
    "reserved_bytes": "reserved",
    "utilization_percent": "utilization",
    "power_watts": "power",
    "temperature_celsius": "temperature",
}
_OVERLAID = ("rss_bytes", "device_used_bytes", "process_used_bytes", "reserved_bytes")


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
    event: Array | None = None
    """The event that each reading follows, -1 before the first, where that is known; elsewhere its time tells."""

    @property
    def label(self) -> str:
        """What people call it, such as ``Resident set (psutil)`` or ``GPU 0 device used (nvml)``."""
        name = _LABELS.get(self.metric, self.metric.replace("_", " "))
        owner = f"GPU {self.device} " if self.device >= 0 else ""
        return f"{owner}{name} ({self.source})"


def read_series(recording: Recording, max_points: int = 1_000) -> list[Series]:
    """Return every metric that was sampled; of each, at most ``max_points`` readings, its highest and lowest among them."""
    samples = recording.samples
    sources, metrics = read_names(samples["source"]), read_names(samples["metric"])
    devices, times, values = (read_numbers(samples[name]) for name in ("device", "time_us", "value"))
    keys = np.stack([sources.codes, metrics.codes, devices.astype(np.int32)], axis=1)
    series = []
    for key in np.unique(keys, axis=0):
        rows = np.flatnonzero((keys == key).all(axis=1) & np.isfinite(values))
        kept = rows[pick_extremes(values[rows], max_points)]
        if len(rows):
            names = sources.text(int(rows[0])), metrics.text(int(rows[0]))
            series.append(Series(*names, int(key[2]), times[kept], values[kept], len(rows)))
    return series


def memory_series(recording: Recording, max_points: int = 1_000) -> list[Series]:
    """Return the series in bytes that can be laid over a timeline: resident set, device used, this process, reserved."""
    return [series for series in read_series(recording, max_points) if series.metric in _OVERLAID]

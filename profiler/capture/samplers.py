"""This process and its GPUs, read at a steady pace -> rows of `recording.SAMPLES`.

A thread reads the resident set and every GPU each tick, and what is costly (USS, swap, children) about once a second. Times are those of
``time.time_ns``, the clock that torch.profiler's events are converted to, less the origin that `Sampler.start` is given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from profiler.capture.nvml import GpuReading, Nvml, NvmlUnavailable
from profiler.recording import HOST, SAMPLES

HOST_METRICS = ("rss_bytes", "uss_bytes", "swap_bytes", "children_rss_bytes")
_GPU_FIELDS = tuple(field.name for field in fields(GpuReading) if field.name not in ("index", "name"))
_MEMORY_FIELDS = ("used_bytes", "free_bytes", "total_bytes")
GPU_METRICS = tuple(f"device_{name}" if name in _MEMORY_FIELDS else name for name in _GPU_FIELDS)

MAX_TICKS = 20_000
"""Ticks kept between two drains (200 s at 10 ms); beyond that every second one is dropped and the pace halves."""
_SLOW_INTERVAL_S = 1.0
_SLOW_SHARE = 0.02
"""Part of the time that the costly host readings may take."""
_NVML_SHARE = 0.5
_NAN = float("nan")


class Sampler:
    """Samples this process and all GPUs in a daemon thread until stopped.

    Args:
        interval_s: seconds between two ticks.
        clock: nanoseconds since the epoch; the origin given to `start` must come from the same clock.
        open_nvml: connects to the driver.
    """

    def __init__(
        self,
        interval_s: float = 0.010,
        clock: Callable[[], int] = time.time_ns,
        open_nvml: Callable[[], Nvml | NvmlUnavailable] = Nvml.open,
    ) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._host = _HostReader()
        self._gpus = _GpuReader(open_nvml())
        self._columns = [("psutil", HOST, metric) for metric in HOST_METRICS] + self._gpus.columns
        self._ticks: list[tuple[int, list[float]]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._origin_ns = 0
        self._num_ticks = 0
        self._cpu_seconds = 0.0
        self._pace_s = interval_s
        self._failures: dict[str, None] = {}

    def start(self, origin_ns: int) -> None:
        """Begin to sample; ``origin_ns`` is the instant of the clock at which ``time_us`` is 0."""
        if self._thread is not None:
            raise RuntimeError("a Sampler is started once")
        self._origin_ns = origin_ns
        self._thread = threading.Thread(target=self._run, name="headroom-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and let go of the driver; what was sampled can still be drained."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._gpus.close()

    def drain(self) -> pa.Table:
        """Return the samples since the last drain, in the order of time, with the schema SAMPLES."""
        with self._lock:
            ticks, self._ticks = self._ticks, []
        return samples_table(ticks, self._columns, self._origin_ns)

    @property
    def cpu_seconds(self) -> float:
        """CPU time that sampling took so far, in seconds."""
        return self._cpu_seconds

    @property
    def warnings(self) -> list[str]:
        """What is not sampled, or not as often as asked, and why: one sentence each."""
        found = [*self._gpus.reasons, *self._failures]
        if self._pace_s > self._interval_s:
            found.append(f"Samples of a long step were thinned to one every {self._pace_s * 1e3:.0f} ms, so that memory stays bounded.")
        slow = self._gpus.period_s
        if slow > 1.5 * self._interval_s:
            found.append(
                f"NVML took {self._gpus.cost_s * 1e3:.0f} ms a reading, so it was read every {slow * 1e3:.0f} ms"
                f" instead of {self._interval_s * 1e3:.0f} ms."
            )
        return found

    def facts(self) -> dict[str, Any]:
        """Return how sampling went: interval_s, num_ticks, cpu_seconds, gpus (names in the order of their index)."""
        return {
            "interval_s": self._interval_s,
            "num_ticks": self._num_ticks,
            "cpu_seconds": self._cpu_seconds,
            "gpus": self._gpus.names,
        }

    def _run(self) -> None:
        cpu_start = time.thread_time()
        due = time.monotonic()
        while not self._stop.is_set():
            self._tick(due)
            self._cpu_seconds = time.thread_time() - cpu_start
            # A tick that comes late is not made up for: catching up would load the program that is measured.
            due = max(due + self._pace_s, time.monotonic())
            self._stop.wait(due - time.monotonic())

    def _tick(self, now: float) -> None:
        time_ns = self._clock()
        try:
            values = self._host.read(now) + self._gpus.read(now, self._interval_s)
        except Exception as error:  # noqa: BLE001  # whatever a driver or the system does, the profiled program goes on
            self._failures.setdefault(f"A sample could not be read: {error}.")
            return
        with self._lock:
            self._num_ticks += 1
            self._ticks.append((time_ns, values))
            if len(self._ticks) >= MAX_TICKS:
                del self._ticks[1::2]
                self._pace_s *= 2


class _HostReader:
    """The process's memory: resident set at every call, the costly rest about once a second."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._slow_due = 0.0

    def read(self, now: float) -> list[float]:
        """Return a value for each of HOST_METRICS, NaN where none was read."""
        values = [float(self._process.memory_info().rss), _NAN, _NAN, _NAN]
        if now >= self._slow_due:
            start = time.perf_counter()
            values[1:] = self._read_slow()
            self._slow_due = now + max(_SLOW_INTERVAL_S, (time.perf_counter() - start) / _SLOW_SHARE)
        return values

    def _read_slow(self) -> list[float]:
        try:
            full = self._process.memory_full_info()
            uss, swap = float(full.uss), float(getattr(full, "swap", _NAN))
        except (psutil.Error, OSError):
            uss = swap = _NAN
        return [uss, swap, float(children_rss_bytes(self._process))]


class _GpuReader:
    """All GPUs' values in one list; slows down where the driver is slow."""

    def __init__(self, nvml: Nvml | NvmlUnavailable) -> None:
        self._nvml = nvml
        first = nvml.read() if isinstance(nvml, Nvml) else []
        self.names = [reading.name for reading in first]
        self.columns, _ = gpu_values(first)
        self._missing = [_NAN] * len(self.columns)
        self._due = 0.0
        self.cost_s = 0.0
        self.period_s = 0.0

    @property
    def reasons(self) -> list[str]:
        return [self._nvml.reason] if isinstance(self._nvml, NvmlUnavailable) else self._nvml.reasons

    def read(self, now: float, interval_s: float) -> list[float]:
        if not isinstance(self._nvml, Nvml) or now < self._due:
            return self._missing
        start = time.perf_counter()
        _, values = gpu_values(self._nvml.read())
        cost_s = time.perf_counter() - start
        self.cost_s = cost_s if not self.cost_s else 0.9 * self.cost_s + 0.1 * cost_s
        self.period_s = max(interval_s, self.cost_s / _NVML_SHARE)
        self._due = now + (self.period_s if self.period_s > interval_s else 0)
        return values

    def close(self) -> None:
        if isinstance(self._nvml, Nvml):
            self._nvml.close()


def children_rss_bytes(process: psutil.Process) -> int:
    """Return the resident sets of all processes below ``process``, added up; those that end meanwhile count 0."""
    total = 0
    try:
        children = process.children(recursive=True)
    except psutil.Error:
        return 0
    for child in children:
        try:
            total += child.memory_info().rss
        except psutil.Error:
            continue
    return total


def gpu_values(readings: Sequence[GpuReading]) -> tuple[list[tuple[str, int, str]], list[float]]:
    """Return source, device and metric of each value of the readings, and the values: NaN where none was read."""
    columns = [("nvml", reading.index, metric) for reading in readings for metric in GPU_METRICS]
    values = [getattr(reading, name) for reading in readings for name in _GPU_FIELDS]
    return columns, [_NAN if value is None else float(value) for value in values]


def samples_table(ticks: Sequence[tuple[int, list[float]]], columns: Sequence[tuple[str, int, str]], origin_ns: int) -> pa.Table:
    """Return one row of `recording.SAMPLES` for each value that was read.

    Args:
        ticks: nanoseconds of a clock, and a value for each column; NaN where none was read.
        columns: source, device and metric.
        origin_ns: the instant of that clock at which ``time_us`` is 0.
    """
    if not ticks:
        return SAMPLES.empty_table()
    values = np.array([row for _, row in ticks])
    times_us = (np.array([time_ns for time_ns, _ in ticks], np.int64) - origin_ns) / 1e3
    tick, column = np.nonzero(~np.isnan(values))
    sources, devices, metrics = zip(*columns, strict=True)
    return pa.table(
        {
            "time_us": times_us[tick],
            "source": _names(sources, column),
            "device": np.array(devices, np.int16)[column],
            "metric": _names(metrics, column),
            "value": values[tick, column],
        },
        schema=SAMPLES,
    )


def _names(names: Sequence[str], column: np.ndarray[Any, Any]) -> pa.DictionaryArray:
    distinct = list(dict.fromkeys(names))
    position = np.array([distinct.index(name) for name in names], np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(position[column]), pa.array(distinct))

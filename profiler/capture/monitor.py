"""The whole machine, now and over the last minutes: memory, processor, the largest processes, GPUs.

Cheap enough to run beside everything else: at most `MAX_READ` processes are looked at in one reading, the others take their turn.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import pyarrow as pa

from profiler.capture.nvml import GpuReading, Nvml, NvmlUnavailable
from profiler.capture.samplers import gpu_values, samples_table
from profiler.devices import this_machine
from profiler.recording import HOST

MAX_READ = 150
NUM_LARGEST = 10
MIN_CPU_SECONDS = 0.05
MACHINE_METRICS = ("machine_used_bytes", "machine_available_bytes", "swap_used_bytes", "cpu_percent")


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """One process at one instant."""

    pid: int
    name: str
    rss_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineNow:
    """The machine at one instant; in a container, the part of it that the container may use."""

    time_ns: int
    """Since the epoch."""
    total_bytes: int
    available_bytes: int
    """Memory that a new program could use without swapping."""
    swap_used_bytes: int
    swap_total_bytes: int
    cpu_percent: float | None
    """Of all cores together, since the reading before; None where that was just now, as at the first reading."""
    num_processes: int
    largest: tuple[ProcessReading, ...]
    """The processes with the largest resident sets, largest first."""
    gpus: tuple[GpuReading, ...]
    reasons: tuple[str, ...]
    """Why GPUs or values of theirs are missing."""

    @property
    def used_bytes(self) -> int:
        """What is not available."""
        return self.total_bytes - self.available_bytes


class MachineReader:
    """Reads the machine again and again; keep one, since readings get cheaper and more complete.

    Args:
        open_nvml: connects to the driver.
    """

    def __init__(self, open_nvml: Callable[[], Nvml | NvmlUnavailable] = Nvml.open) -> None:
        self._nvml = open_nvml()
        self._processes = _Processes()
        psutil.cpu_percent()
        self._cpu_since = time.monotonic()

    def read(self) -> MachineNow:
        """Return the machine as it is now."""
        cpu_percent = self._cpu_percent()  # before the rest, which is itself a load
        machine, swap = this_machine(), psutil.swap_memory()
        num_processes, largest = self._processes.largest()
        nvml = self._nvml
        return MachineNow(
            time_ns=time.time_ns(),
            total_bytes=machine.total_bytes,
            available_bytes=machine.available_bytes,
            swap_used_bytes=swap.used,
            swap_total_bytes=swap.total,
            cpu_percent=cpu_percent,
            num_processes=num_processes,
            largest=largest,
            gpus=tuple(nvml.read()) if isinstance(nvml, Nvml) else (),
            reasons=tuple(nvml.reasons) if isinstance(nvml, Nvml) else (nvml.reason,),
        )

    def _cpu_percent(self) -> float | None:
        """Return the load, unless over a moment so short that it is all or nothing."""
        now = time.monotonic()
        if now - self._cpu_since < MIN_CPU_SECONDS:
            return None
        self._cpu_since = now
        return psutil.cpu_percent()

    def close(self) -> None:
        """Let go of the driver."""
        if isinstance(self._nvml, Nvml):
            self._nvml.close()


class History:
    """The last minutes of the machine, filled by one daemon thread for everybody who looks.

    Args:
        interval_s: seconds between two readings.
        keep_s: how far back it reaches.
        reader: reads the machine.
    """

    def __init__(self, interval_s: float = 2.0, keep_s: float = 600.0, reader: MachineReader | None = None) -> None:
        self._interval_s = interval_s
        self._reader = reader or MachineReader()
        self._readings: deque[MachineNow] = deque([self._reader.read()], maxlen=max(1, round(keep_s / interval_s)))
        self._failure = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headroom-monitor", daemon=True)
        self._thread.start()

    @property
    def latest(self) -> MachineNow:
        """The newest reading."""
        return self._readings[-1]

    @property
    def failure(self) -> str:
        """Why the last reading failed; empty where it did not."""
        return self._failure

    def samples(self) -> pa.Table:
        """Return all readings with the schema SAMPLES: MACHINE_METRICS of the host and the metrics of each GPU.

        ``time_us`` is 0 at the newest reading and negative before it.
        """
        readings = list(self._readings)
        gpu_columns, _ = gpu_values(readings[0].gpus)
        columns = [("psutil", HOST, metric) for metric in MACHINE_METRICS] + gpu_columns
        ticks = [(reading.time_ns, _machine_values(reading) + gpu_values(reading.gpus)[1]) for reading in readings]
        return samples_table(ticks, columns, readings[-1].time_ns)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=5)
        self._reader.close()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self._readings.append(self._reader.read())
                self._failure = ""
            except (psutil.Error, OSError) as error:
                self._failure = f"The machine could not be read: {error}."


def read_machine_now() -> MachineNow:
    """Return the machine as it is now, once; the processor's load is that of the last tenth of a second."""
    reader = MachineReader()
    time.sleep(0.1)
    now = reader.read()
    reader.close()
    return now


class _Processes:
    """Finds the largest processes without reading all of them each time."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}
        self._sizes: dict[int, int] = {}
        self._turn = 0

    def largest(self) -> tuple[int, tuple[ProcessReading, ...]]:
        pids = psutil.pids()
        gone = self._known.keys() - set(pids)
        for pid in gone:
            del self._known[pid]
            self._sizes.pop(pid, None)
        for pid in {*self._top(), *self._next(pids)}:
            self._read(pid)
        readings = (self._describe(pid) for pid in self._top())
        return len(pids), tuple(reading for reading in readings if reading)

    def _next(self, pids: list[int]) -> list[int]:
        """Return the pids whose turn it is: those never seen first."""
        new = [pid for pid in pids if pid not in self._known][:MAX_READ]
        count = min(len(pids), MAX_READ - len(new))
        start = self._turn % len(pids)
        self._turn = start + count
        return new + (pids + pids)[start : start + count]

    def _top(self) -> list[int]:
        return sorted(self._sizes, key=lambda pid: self._sizes[pid], reverse=True)[:NUM_LARGEST]

    def _read(self, pid: int) -> None:
        try:
            if pid not in self._known:
                self._known[pid] = psutil.Process(pid)
            self._sizes[pid] = self._known[pid].memory_info().rss
        except psutil.Error:
            self._sizes.pop(pid, None)

    def _describe(self, pid: int) -> ProcessReading | None:
        try:
            process = self._known[pid]
            if not process.is_running():
                del self._known[pid], self._sizes[pid]
                return None
            return ProcessReading(pid, process.name(), self._sizes[pid])
        except psutil.Error:
            return None


def _machine_values(reading: MachineNow) -> list[float]:
    load = math.nan if reading.cpu_percent is None else reading.cpu_percent
    return [float(reading.used_bytes), float(reading.available_bytes), float(reading.swap_used_bytes), load]

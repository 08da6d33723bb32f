"""The process's resident set: now, and at its highest since it was asked to start counting."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from profiler.units import KIB

_SAMPLE_SECONDS = 0.001
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def resident_bytes() -> int:
    """Return the resident set once freed memory is given back to the system, where it can be (glibc)."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
    return int(psutil.Process().memory_info().rss)


class ResidentPeak:
    """While it is entered, watches how high the resident set goes; the system's own mark where it can be reset, else samples."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._done = threading.Event()
        self._sampler: threading.Thread | None = None

    def __enter__(self) -> Self:
        if not _reset_mark():
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._done.set()
        if self._sampler is None:
            self.peak_bytes = _mark()
        else:
            self._sampler.join()

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._done.is_set():
            self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)
            self._done.wait(_SAMPLE_SECONDS)


def _reset_mark() -> bool:
    """Set the system's mark of the highest resident set to what it is now; return whether it could be (Linux)."""
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return _mark() > 0


def _mark() -> int:
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    return 0

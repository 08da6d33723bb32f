"""This machine -> the times of sparse products against dense ones, measured once by a worker and kept: the caller needs no torch."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.compression.result import ResultStore
from profiler.devices import this_machine
from profiler.errors import JobFailed
from profiler.jobs.key import versions
from profiler.jobs.process import how_it_ended, worker_environment
from profiler.spec import canonical_json

_COMMAND = (sys.executable, "-m", "profiler.compression.sparse_times")
_MAX_SECONDS = 300.0


@dataclass(frozen=True)
class SparseTime:
    """The time of a product in one format."""

    format: str
    zeros: float
    """Share of zeros, 0 to 1; of zero blocks for block formats."""
    seconds: float
    ratio: float
    """To the dense product of the same shape."""


def sparse_times(home: Path | str | None = None, *, command: Sequence[str] = _COMMAND) -> list[SparseTime]:
    """Return the times, some seconds the first time, a file's reading afterwards.

    Args:
        home: where they are kept; by default ``$HEADROOM_HOME``, else ``.headroom``.
        command: prints them as JSON.

    Raises:
        JobFailed: they could not be measured.
    """
    machine = this_machine()
    parts = [machine.host, machine.cpu, versions()["torch"]]
    kept = ResultStore(home).folder / f"times-{hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]}.txt"
    try:
        return _parsed(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        text = _measured(command)
    try:
        found = _parsed(text)
    except (ValueError, TypeError):
        raise JobFailed("The times of sparse products could not be measured: the worker printed no list. Try again.") from None
    _keep(kept, text)
    return found


def break_even_in_time(times: Sequence[SparseTime], name: str) -> float | None:
    """Return the share of zeros from which a format is faster than dense, between measurements in proportion; None where it is not.

    Args:
        times: measured.
        name: of the format.
    """
    rows = sorted((row.zeros, row.ratio) for row in times if row.format == name)
    if not rows or rows[-1][1] > 1:
        return None
    slower = [row for row in rows if row[1] > 1]
    if not slower:
        return rows[0][0]
    (low, above), (high, below) = slower[-1], next(row for row in rows if row[0] > slower[-1][0])
    return low + (high - low) * (above - 1) / (above - below)


def _measured(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=_MAX_SECONDS, env=worker_environment(), check=False)
    except subprocess.TimeoutExpired:
        raise JobFailed(
            f"The times of sparse products took more than {_MAX_SECONDS:.0f} s. Try again when the machine is less busy."
        ) from None
    if done.returncode:
        words = (done.stderr.strip().splitlines() or [""])[-1][:400]
        raise JobFailed(f"The times of sparse products could not be measured. {how_it_ended(done.returncode, words)}")
    return done.stdout


def _parsed(text: str) -> list[SparseTime]:
    return [SparseTime(**row) for row in json.loads(text)]


def _keep(path: Path, text: str) -> None:
    """Write them for the next time; on a read-only or full disk they are measured again instead."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        return

"""This machine -> the times of sparse products against dense ones, measured once by a worker and kept: the caller needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.devices import this_machine
from profiler.jobs.key import versions
from profiler.jobs.printed import printed_once

_COMMAND = (sys.executable, "-m", "profiler.compression.sparse_times")


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
    return printed_once(command, _parsed, name="times", parts=parts, what="The times of sparse products", home=home)


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


def _parsed(rows: Any) -> list[SparseTime]:
    return [SparseTime(**row) for row in rows]

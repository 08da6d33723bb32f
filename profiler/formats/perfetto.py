"""A recording -> a trace that Perfetto and chrome://tracing open: memory as stacked counters, phases, steps and operators as slices.

The format is the Trace Event Format (JSON); times are microseconds. What a counter stacks is given by the caller, who knows categories.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from profiler.errors import StorageError
from profiler.recording import Recording

Array = np.ndarray[Any, Any]

_PROCESS = 1
_THREADS = {"step": 1, "phase": 2, "region": 3, "operator": 4}


@dataclass(frozen=True, eq=False)
class Counter:
    """One memory over time, stacked: such as what is allocated on GPU 0, by category."""

    name: str
    time_us: Array
    """Microseconds since the recording began, never falling."""
    series: Mapping[str, Array]
    """Bytes at each time, by what they are; their sum is the counter's height."""

    @classmethod
    def of_blocks(
        cls, name: str, event_us: Array, birth: Array, death: Array, num_bytes: Array, kinds: Sequence[str], kind: Array
    ) -> Counter:
        """Return the counter of blocks that are born and die at events.

        Args:
            name: what the counter is called.
            event_us: the events' times.
            birth: by block, its event of birth.
            death: by block, the event that frees it; the number of events where none does.
            num_bytes: by block.
            kinds: the names of what blocks are, such as the categories' labels.
            kind: by block, its place in ``kinds``.
        """
        series = {}
        for code in np.unique(kind).tolist():
            chosen = kind == code
            change = np.zeros(len(event_us) + 1, np.int64)
            np.add.at(change, birth[chosen], num_bytes[chosen])
            np.subtract.at(change, death[chosen], num_bytes[chosen])
            series[kinds[code]] = np.cumsum(change[:-1])
        return cls(name, event_us, series)


def trace_events(recording: Recording, counters: Sequence[Counter]) -> Iterator[dict[str, Any]]:
    """Yield the events of the trace."""
    yield {"ph": "M", "name": "process_name", "pid": _PROCESS, "args": {"name": recording.metadata.title}}
    for kind, thread in _THREADS.items():
        yield {"ph": "M", "name": "thread_name", "pid": _PROCESS, "tid": thread, "args": {"name": f"{kind}s"}}
    for counter in counters:
        columns = [column.tolist() for column in counter.series.values()]
        names = tuple(counter.series)
        for time_us, *values in zip(counter.time_us.tolist(), *columns, strict=True):
            yield {"ph": "C", "name": counter.name, "pid": _PROCESS, "ts": time_us, "args": dict(zip(names, values, strict=True))}
    for mark in recording.marks.to_pylist():
        yield _slice(mark["kind"], mark["name"], mark["start_us"], mark["end_us"] - mark["start_us"], {"step": mark["step"]})
    for call in recording.operators.to_pylist():
        about = {"module": call["module"], "phase": call["phase"], "step": call["step"]}
        yield _slice("operator", call["operator"], call["time_us"], call["duration_us"] or 0.0, about)


def write_trace(recording: Recording, path: Path | str, counters: Sequence[Counter]) -> None:
    """Write the trace as gzipped JSON, event by event; name it ``.json.gz``.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        with gzip.open(path, "wt", encoding="utf-8", compresslevel=5) as file:
            file.write('{"displayTimeUnit":"ms","traceEvents":[')
            for number, event in enumerate(trace_events(recording, counters)):
                file.write((",\n" if number else "\n") + json.dumps(event, allow_nan=False, separators=(",", ":")))
            file.write("\n]}\n")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}. Choose another folder.") from error


def _slice(kind: str, name: str | None, start_us: float, duration_us: float, about: dict[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in about.items() if value is not None}
    place = {"pid": _PROCESS, "tid": _THREADS.get(kind, _THREADS["region"])}
    return {"ph": "X", "cat": kind, "name": name or "", "ts": start_us, "dur": max(duration_us, 0.0), **place, "args": known}

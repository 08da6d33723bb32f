"""A job on a simulated GPU -> its recording, with the call stacks that PyTorch's allocator would have recorded.

A simulation runs the job's own Python, that of torch and of transformers, so its stacks are real ones. Left out of them is what a GPU would
not have: the frames of the simulation itself, and, in backward, what stands outside of autograd's engine, which on a GPU works in a thread
of its own. Nanoseconds become microseconds: the allocator's clock counts whole ones, and a simulated moment takes less.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.compute as pc

from profiler.recording import STACKS, Recording
from profiler.simulate.engine import simulate_job
from profiler.simulate.notebook import SimulatedNotebook
from profiler.spec import Job
from profiler.storage import read_recording

_SIMULATION = re.compile(
    r"/profiler/(simulate|tracing)/|/torch/(_subclasses|_ops|overrides|_tensor|_prims|_refs|_decomp|_meta_registrations|utils/_python_dispatch)"
    r"|/tests/|/unittest/|/contextlib\.py$"
)
_ENGINE = "_engine_run_backward"


def simulated_with_stacks(job: Job, folder: Path) -> Recording:
    """Simulate a job; every event has the stack at which it happened, births and deaths alike."""
    stack_at: dict[int, int] = {}
    numbers: dict[str, int] = {}
    note_event = SimulatedNotebook._memory_event

    def noted(notebook: SimulatedNotebook, *event: object) -> None:
        note_event(notebook, *event)  # type: ignore[arg-type]
        text = _stack(sys._getframe(1))
        if text:
            stack_at[notebook.now_ns] = numbers.setdefault(text, len(numbers))

    with patch.object(SimulatedNotebook, "_memory_event", noted):
        simulate_job(job, folder / "simulated.headroom")
    recording = read_recording(folder / "simulated.headroom")
    events = recording.events
    events = events.filter(pc.greater_equal(events["device"], 0))  # a snapshot knows nothing of the host
    stacks = [stack_at.get(round(time_us * 1000)) for time_us in events["time_us"].to_pylist()]
    return dataclasses.replace(
        recording,
        events=_slower(_replaced(events, "stack", pa.array(stacks, pa.int32())), "time_us"),
        segments=_slower(recording.segments, "time_us"),
        marks=_slower(recording.marks, "start_us", "end_us"),
        stacks=pa.table({"stack": list(numbers.values()), "frames": list(numbers)}, schema=STACKS),
    )


def _slower(table: pa.Table, *names: str) -> pa.Table:
    for name in names:
        table = _replaced(table, name, pc.multiply(table[name], 1000.0))
    return table


def _replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    column = table.schema.get_field_index(name)
    return table.set_column(column, table.schema.field(column), values)


def _stack(frame: FrameType | None) -> str:
    lines = []
    while frame is not None and frame.f_code.co_name != _ENGINE:
        if not _SIMULATION.search(frame.f_code.co_filename):
            lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}:{frame.f_code.co_name}")
        frame = frame.f_back
    return "\n".join(lines)

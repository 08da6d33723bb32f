"""Programs on a made-up GPU -> recordings with segments and addresses, of which the allocator's true state is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.state import State
from profiler.allocator.trace import Kind
from profiler.recording import EVENTS, SEGMENTS, STACKS, Provenance, Recording
from tests.allocator.programs import Machine, Program
from tests.builders import metadata

_SEGMENT_KINDS = (Kind.SEGMENT_ALLOC, Kind.SEGMENT_FREE, Kind.SEGMENT_MAP, Kind.SEGMENT_UNMAP, Kind.OOM)
_STEP_US = 10.0


@dataclass
class RecordedProgram:
    """A program's recording, and after each of its steps that ends with an event, that event and the true state."""

    recording: Recording
    states: list[tuple[int, State]] = field(default_factory=list)


def run_on_gpu(
    program: Program, config: AllocatorConfig | None = None, capacity_bytes: int | None = None, **fields: Any
) -> RecordedProgram:
    """Run a program, write down what torch's history would say of it, and what the allocator held after each step."""
    machine = Machine(config or AllocatorConfig(), capacity_bytes)
    events: list[dict[str, Any]] = []
    segments: list[dict[str, Any]] = []
    blocks: dict[int, dict[str, Any]] = {}
    states = []
    for step in program:
        first = len(machine.rows)
        machine.step(*step)
        for kind, address, num_bytes, stream in machine.rows[first:]:
            row = {"time_us": (len(events) + len(segments)) * _STEP_US, "device": 0, "rank": 0, "address": address, "stream": stream}
            if kind in _SEGMENT_KINDS:
                segments.append({**row, "action": Kind(kind).name.lower(), "bytes": num_bytes})
                continue
            if kind == Kind.ALLOC:
                size = machine.live[-1].size
                blocks[address] = {"block": len(events), "requested_bytes": num_bytes, "block_bytes": size}
            events.append({**row, **blocks[address], "action": Kind(kind).name.lower(), "roles": 0, "step": 0, "phase": "other"})
        if machine.rows[first:] and machine.rows[-1][0] not in _SEGMENT_KINDS:
            states.append((len(events) - 1, machine.state()))
    recording = Recording(
        metadata=metadata(provenance=Provenance.IMPORTED, engine="CUDA memory snapshot, torch 2.6", **fields),
        events=pa.Table.from_pylist(events, schema=EVENTS),
        segments=pa.Table.from_pylist(segments, schema=SEGMENTS),
    )
    return RecordedProgram(recording, states)


def with_stacks(recording: Recording, stacks: list[str]) -> Recording:
    """Return the recording with call stacks given to its births in turn."""
    births = [row for row, action in enumerate(recording.events["action"].to_pylist()) if action == "alloc"]
    numbers: list[int | None] = [None] * len(recording.events)
    for turn, row in enumerate(births):
        numbers[row] = turn % len(stacks)
    column = recording.events.schema.get_field_index("stack")
    events = recording.events.set_column(column, EVENTS.field("stack"), pa.array(numbers, pa.int32()))
    table = pa.table({"stack": pa.array(range(len(stacks)), pa.int32()), "frames": stacks}, schema=STACKS)
    return Recording(metadata=recording.metadata, events=events, segments=recording.segments, stacks=table)

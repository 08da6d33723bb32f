"""An event of a recording -> the facts that say where a program was: for messages about out-of-memory errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from profiler.allocator.trace import Trace
from profiler.analysis.out_of_memory import held_after
from profiler.analysis.timeline import Timeline
from profiler.recording import Recording

_MAX_FRAMES = 30
_MAX_MODULES = 30


def instant_facts(recording: Recording, timeline: Timeline, event: int, *, alive_after: bool = True) -> dict[str, Any]:
    """Return where a program was at an event, and what was alive then.

    Keys: event, step, phase, module, operator, tensor (empty where not known), frames (innermost first),
    categories_alive (bytes by name, largest first), modules_alive (the largest, as `held_after` has them).

    Args:
        recording: what to read.
        timeline: of the memory that is meant.
        event: its place in the recording's events; -1 for before the first.
        alive_after: what was alive right after the event; else right before it.
    """
    row = recording.events.slice(event, 1).to_pylist()[0] if event >= 0 else {"step": -1}
    last = event if alive_after else event - 1
    alive = held_after(timeline, last, recording.stacks)
    return {
        "event": event,
        "step": row["step"],
        **{name: row.get(name) or "" for name in ("phase", "module", "operator", "tensor")},
        "frames": _frames(recording, row.get("stack")),
        "categories_alive": {category.name: num_bytes for category, num_bytes in alive.by_category.items()},
        "modules_alive": dict(list(alive.by_module.items())[:_MAX_MODULES]),
    }


def failing_event(trace: Trace, row: int) -> int:
    """Return the event at which a replay stopped at a row of its trace; -1 for before the first.

    A row that came from no event, such as an out-of-memory error that was recorded, belongs to the event before it.
    """
    known = np.flatnonzero(trace.source_row[: row + 1] >= 0)
    return int(trace.source_row[known[-1]]) if len(known) else -1


def failure_facts(recording: Recording, timeline: Timeline, trace: Trace, row: int) -> dict[str, Any]:
    """Return `instant_facts` of where memory ran out in a replay of a trace, at one of its rows: what was alive right before."""
    is_own = trace.source_row[row] >= 0
    return instant_facts(recording, timeline, failing_event(trace, row), alive_after=not is_own)


def recorded_out_of_memory(recording: Recording, timeline: Timeline) -> dict[str, Any] | None:
    """Return the last out-of-memory error that was recorded, or None: requested_bytes, and `instant_facts` of the event before it."""
    lane, segments = timeline.lane, recording.segments
    mine = pc.and_(pc.equal(segments["device"], lane.device), pc.equal(segments["rank"].fill_null(0), lane.rank))
    found = segments.filter(pc.and_(mine, pc.equal(segments["action"].cast(pa.string()), "oom")))
    if not len(found):
        return None
    last = found.slice(len(found) - 1).to_pylist()[0]
    facts = instant_facts(recording, timeline, int(np.searchsorted(timeline.blocks.event_us, last["time_us"], side="right")) - 1)
    return {"requested_bytes": last["bytes"], **facts, "frames": _frames(recording, last["stack"]) or facts["frames"]}


def _frames(recording: Recording, stack: int | None) -> list[str]:
    if stack is None:
        return []
    texts = recording.stacks.filter(pc.equal(recording.stacks["stack"], stack))["frames"].to_pylist()
    return texts[0].split("\n")[:_MAX_FRAMES] if texts else []

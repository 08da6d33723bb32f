"""The last out-of-memory error that a recorded run met -> why, by a replay on the card that the recording implies.

The allocator could have reserved what it held when the error came and what the driver had free then; all else on the card counts as taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from profiler.allocator.driver import Driver
from profiler.allocator.out_of_memory import Explanation, explain_out_of_memory
from profiler.allocator.recorded import Recorded, recorded
from profiler.allocator.recorded_ooms import free_bytes_at_ooms
from profiler.allocator.replay import Replay, replay
from profiler.allocator.trace import Kind, Trace
from profiler.analysis.columns import read_numbers
from profiler.analysis.instants import recorded_out_of_memory
from profiler.analysis.segment_rows import lane_segments, signed_bytes
from profiler.analysis.timeline import Timeline
from profiler.recording import Recording
from profiler.units import format_bytes


@dataclass(frozen=True, kw_only=True)
class RecordedFailure:
    """The error, and why it came where a replay meets it too."""

    facts: dict[str, Any]
    """As `profiler.analysis.instants.recorded_out_of_memory` has it."""
    num_failures: int
    """How many such errors were recorded; this is the last one."""
    reserved_bytes: int
    """When it came, as recorded."""
    device_free_bytes: int | None
    """What the driver had left; None where the recording does not say."""
    explanation: Explanation | None
    """Its settings are tried up to the request that failed; None where the replay does not fail just there."""
    caveat: str
    """Why there is no explanation; empty where there is one."""

    @property
    def capacity_bytes(self) -> int:
        """What the allocator could have reserved, as the recording implies; the least where it does not say what the driver had left."""
        return self.reserved_bytes + (self.device_free_bytes or 0)

    def sentences(self) -> list[str]:
        """Return the error in words."""
        implied = self._implied()
        if self.explanation is None:
            return [implied, self.caveat]
        after = "Settings were tried up to this request; what would have come after it is not in the recording."
        return [implied, *self.explanation.sentences(), after]

    def _implied(self) -> str:
        reserved = f"When it came, {format_bytes(self.reserved_bytes)} were reserved"
        if self.device_free_bytes is None:
            return f"{reserved}; the recording does not say what the driver had free, which counts as nothing."
        return (
            f"{reserved} and the driver had {format_bytes(self.device_free_bytes)} free: the recording implies "
            f"{format_bytes(self.capacity_bytes)} for the allocator; what else was on the card counts as taken."
        )


def explain_recorded_failure(
    recording: Recording, timeline: Timeline, told: Callable[[Trace], Trace] = lambda trace: trace
) -> RecordedFailure | None:
    """Return why the last recorded out-of-memory error of a memory came, by about two dozen replays; None where there was none.

    Args:
        recording: with the errors among its segments' rows.
        timeline: of the memory.
        told: makes a trace tell how far its replays are.
    """
    facts = recorded_out_of_memory(recording, timeline)
    if facts is None:
        return None
    lane = timeline.lane
    segments = lane_segments(recording, lane)
    failed = np.flatnonzero(pc.equal(segments["action"].cast(pa.string()), "oom").to_numpy(zero_copy_only=False))
    reserved_bytes = int(signed_bytes(segments)[: failed[-1]].sum())
    requested = read_numbers(segments["bytes"])[failed].tolist()
    free_bytes = free_bytes_at_ooms(recording.metadata, lane.device, lane.rank, requested)[-1]
    device_free_bytes = None if free_bytes is None else max(free_bytes, 0)
    found = recorded(recording, lane.device, lane.rank)
    explanation, caveat = _explained(found, reserved_bytes, reserved_bytes + (device_free_bytes or 0), told)
    return RecordedFailure(
        facts=facts,
        num_failures=len(failed),
        reserved_bytes=reserved_bytes,
        device_free_bytes=device_free_bytes,
        explanation=explanation,
        caveat=caveat,
    )


def _explained(found: Recorded, reserved_bytes: int, capacity_bytes: int, told: Callable[[Trace], Trace]) -> tuple[Explanation | None, str]:
    """Return the explanation, or why there is none."""
    if not found.knows_segments:
        return None, "The recording does not say what was reserved before it began, so the error cannot be replayed."
    trace = _up_to_last_failure(found.trace)
    run = replay(trace, found.config, Driver(capacity_bytes), start=found.start, take_retries=True)
    caveat = _caveat(run, len(trace) - 1, reserved_bytes, capacity_bytes)
    if caveat:
        return None, caveat
    afresh = told(trace.preceded_by(found.start))
    return explain_out_of_memory(afresh, found.config, capacity_bytes, run=run), ""


def _up_to_last_failure(trace: Trace) -> Trace:
    """Return the requests up to the one that failed last, as a request like any other.

    Errors before it were survived and held nothing. Each left one trace: the allocator asked the driver, so what was given back right
    before was given back to make room. A row of growth says just that.
    """
    last = int(np.flatnonzero(trace.kind == Kind.OOM)[-1])
    names = ("kind", "key", "bytes", "stream", "source_row")
    kind, *rest = (np.append(getattr(trace, name)[: last + 1], getattr(trace, name)[last]) for name in names)
    kind[kind == Kind.OOM] = Kind.SEGMENT_ALLOC
    kind[-1] = Kind.ALLOC
    return Trace.of(kind, *rest)


def _caveat(run: Replay, last: int, reserved_bytes: int, capacity_bytes: int) -> str:
    """Return how a replay of the recorded run differs from it; empty where it fails at the same request with the same reserved."""
    replayed = f"Replayed with {format_bytes(capacity_bytes)} to reserve,"
    if run.oom is None:
        return f"{replayed} the request passes: what made it fail is not in the recording, and it is not explained further."
    if run.oom.row != last:
        return (
            f"{replayed} memory runs out at an earlier request, which passed when it was recorded: more was on the card beside the "
            "allocator when the error came, and it is not explained further."
        )
    if run.oom.cause.reserved_bytes != reserved_bytes:
        return (
            f"{replayed} the request fails with {format_bytes(run.oom.cause.reserved_bytes)} reserved, which is not what was recorded: "
            "part of the history is missing, and the error is not explained further."
        )
    return ""

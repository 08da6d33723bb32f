"""The rows of a recording's segments -> by how much reserved memory changed, and the most that was reserved. Needs no pandas."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from profiler.analysis.blocks import Lane
from profiler.analysis.columns import Array, read_names, read_numbers
from profiler.recording import Action, Recording

GROWTH = ("segment_alloc", "segment_map", Action.PREEXISTING.value)
_RELEASE = ("segment_free", "segment_unmap")


def lane_segments(recording: Recording, lane: Lane) -> pa.Table:
    """Return the segments' rows of one lane in the order of time."""
    segments = recording.segments
    chosen = segments.filter(pc.and_(pc.equal(segments["device"], lane.device), pc.equal(segments["rank"], lane.rank)))
    return chosen.take(pa.array(np.argsort(read_numbers(chosen["time_us"]), kind="stable")))


def signed_bytes(segments: pa.Table) -> Array:
    """Return by how much each row changed reserved."""
    sign = read_names(segments["action"]).mapped(dict.fromkeys(GROWTH, 1) | dict.fromkeys(_RELEASE, -1), 0)
    return read_numbers(segments["bytes"]) * sign


def reserved_levels(recording: Recording, lane: Lane) -> tuple[Array, Array]:
    """Return when a lane's reserved memory changed, microseconds, and its bytes from then on; empty where it is not recorded."""
    segments = lane_segments(recording, lane)
    signed = signed_bytes(segments)
    changes = np.flatnonzero(signed)
    return read_numbers(segments["time_us"])[changes], np.cumsum(signed[changes])


def peak_reserved_bytes(recording: Recording, lane: Lane) -> int | None:
    """Return the most that a lane's allocator had reserved; None where the recording says nothing of it."""
    levels = reserved_levels(recording, lane)[1]
    return int(levels.max()) if len(levels) else None

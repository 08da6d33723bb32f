"""A recording and a question about its reserved memory -> the sentences that say what the answer cannot be exact about."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from profiler.allocator.private_pools import recorded_pools
from profiler.allocator.trace import Kind, Trace
from profiler.analysis.blocks import Lane
from profiler.analysis.columns import read_names
from profiler.analysis.segment_rows import lane_segments
from profiler.recording import HOST, Action, Recording


def limits_of_replay(
    recording: Recording, lane: Lane, trace: Trace, *, knows_segments: bool, as_recorded: bool, on_a_card: bool
) -> list[str]:
    """Return what a replay cannot know, as far as it matters to this recording and question; docs/allocator.md has all of it.

    Args:
        recording: whose requests are replayed.
        lane: the memory.
        trace: its requests.
        knows_segments: whether the recording says what was reserved.
        as_recorded: what happened is reproduced; else other settings or another card are tried.
        on_a_card: the allocator may reserve only so much.
    """
    found = list(_of_history(recording, lane, knows_segments=knows_segments))
    if not as_recorded:
        found += _of_trials(recording, lane, trace, knows_segments=knows_segments)
    if on_a_card:
        found.append("Out of memory is told to about 35 MiB of capacity: what the context, NCCL and the driver take varies.")
    return found


def _of_history(recording: Recording, lane: Lane, *, knows_segments: bool) -> Iterator[str]:
    """Say what every replay of this recording has to assume."""
    if lane.device == HOST:
        yield (
            "What a GPU would ask for beside it is not in a CPU recording: cuBLAS workspaces (8.1 MiB each, 32 MiB from Hopper on) and "
            "temporaries of its kernels."
        )
    if not knows_segments:
        yield "The recording does not say what was reserved: its requests were replayed as if a GPU had served them."
    num_pools = len({pool.pool for pool in recorded_pools(recording.metadata, lane.device, lane.rank)})
    if num_pools:
        yield (
            f"Private pools (CUDA graphs, MemPool), {num_pools:,} here, are told by the segments that were there at the end; how well this "
            "reproduces such programs was not compared with real recordings."
        )
    obtained = set(read_names(lane_segments(recording, lane)["action"]).texts().tolist())
    if {Kind.SEGMENT_ALLOC.name.lower(), Kind.SEGMENT_MAP.name.lower()} <= obtained:
        yield (
            "Segments were obtained both whole and page by page: the settings changed while the program ran, and all of it is replayed "
            "under the same ones."
        )


def _of_trials(recording: Recording, lane: Lane, trace: Trace, *, knows_segments: bool) -> Iterator[str]:
    """Say what is left out or assumed where other settings or another card are tried."""
    older = Action.PREEXISTING.value in read_names(lane_segments(recording, lane)["action"]).texts().tolist()
    if knows_segments and older:
        yield "What was cached before the recording began is left out; its live blocks are allocated first."
    num_waiting = int(np.count_nonzero(trace.kind == Kind.FREE_REQUESTED)) - len(trace.frees_at_once)
    if num_waiting:
        yield f"Frees that waited for another stream, {num_waiting:,} here, complete when they did as recorded; only the card knows when."
    num_failures = int(np.count_nonzero(trace.kind == Kind.OOM))
    if num_failures:
        yield (
            f"Requests that ran out of memory as recorded, {num_failures:,} here, are tried, and freed at once where they pass, since "
            "how long their tensors would have lived is not known."
        )

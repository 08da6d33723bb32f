"""A recording of one memory -> what a replay begins with: the program's requests, the state before them, and the settings.

Recordings of GPUs say what was reserved and held when they began, so that a replay can reproduce them. Others (host memory, simulations)
say only what was requested: their older blocks are allocated first, in their order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from profiler.allocator.config import NEWEST, AllocatorConfig
from profiler.allocator.private_pools import PoolRange, recorded_pools, streams_by_pool
from profiler.allocator.sizes import round_size
from profiler.allocator.state import BlockState, BlockStatus, SegmentState, State, active_bytes
from profiler.allocator.trace import Column, Trace
from profiler.allocator.undo import is_small_range, with_range_addresses
from profiler.recording import Action, Metadata, Recording


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """All that a replay of one memory begins with."""

    trace: Trace
    """`Trace.source_row` are rows of the recording's events."""
    start: State
    """What the allocator held before the first request; empty where that is not known, or nothing."""
    config: AllocatorConfig
    """The settings it was recorded under; torch's defaults where it does not say."""
    knows_segments: bool
    """Whether the recording says what was reserved: then a replay under `config` must reserve the same."""


def recorded(recording: Recording, device: int = 0, rank: int = 0) -> Recorded:
    """Return what a recording says of one memory.

    Args:
        recording: of any engine.
        device: GPU index, or `profiler.recording.HOST`.
        rank: of several processes, which.

    Raises:
        FormatError: its blocks overlap or lie outside of their segments.
        SpecError: it holds impossible settings.
    """
    segments = recording.segments.filter(pa.array(_in_lane(recording.segments, device, rank)))
    config = _config(recording.metadata, segments)
    in_lane = _in_lane(recording.events, device, rank)
    older = in_lane & pc.equal(_actions(recording.events), Action.PREEXISTING.value).to_numpy(zero_copy_only=False)
    pools = recorded_pools(recording.metadata, device, rank)
    start = _start(recording.events.filter(pa.array(older)), segments, config, pools) if len(segments) else None
    rows = np.flatnonzero(in_lane if start is None else in_lane & ~older)
    events = recording.events.take(pa.array(rows))
    trace = Trace.from_recording(replace(recording, events=events, segments=segments), device, rank)
    from_event = np.flatnonzero(trace.source_row >= 0)
    of_event = trace.source_row[from_event]
    key, source = trace.key.copy(), trace.source_row.copy()
    source[from_event] = rows[of_event]
    if start is not None:  # a state names blocks by address, so the requests have to
        key[from_event] = _numbers(events, "address")[of_event]
        start = with_range_addresses(start, trace)
    return Recorded(trace=replace(trace, key=key, source_row=source), start=start or (), config=config, knows_segments=start is not None)


def recorded_config(recording: Recording, device: int = 0, rank: int = 0) -> AllocatorConfig:
    """Return the settings that one memory was recorded under; torch's defaults where the recording does not say.

    Raises:
        SpecError: it holds impossible settings.
    """
    segments = recording.segments.filter(pa.array(_in_lane(recording.segments, device, rank)))
    return _config(recording.metadata, segments)


def _in_lane(table: pa.Table, device: int, rank: int) -> Column:
    mask = pc.and_(pc.equal(table["device"], device), pc.equal(table["rank"].fill_null(0), rank))
    found: Column = mask.fill_null(False).to_numpy(zero_copy_only=False)
    return found


def _actions(table: pa.Table) -> pa.ChunkedArray:
    return table["action"].cast(pa.string())


def _config(metadata: Metadata, segments: pa.Table) -> AllocatorConfig:
    """Return the settings that the recording names; that pages were mapped tells of expandable segments where nothing else does."""
    maps = pc.any(pc.equal(_actions(segments), "segment_map")).as_py()
    settings = metadata.facts.get("allocator_settings")
    known = ({"expandable_segments": True} if maps else {}) | (settings if isinstance(settings, dict) else {})
    return AllocatorConfig.from_settings(known, torch_version_of(metadata))


def torch_version_of(metadata: Metadata) -> tuple[int, int]:
    """Return the torch version that made a recording, as far as it is known; else the newest that is modelled."""
    guess = metadata.facts.get("torch_version")
    parts: list[Any] = list(guess) if isinstance(guess, list) else metadata.versions.get("torch", "").split(".")
    if len(parts) < 2 or not all(str(part).isdecimal() and len(str(part)) < 5 for part in parts[:2]):
        return NEWEST
    return int(parts[0]), int(parts[1])


def _start(older: pa.Table, segments: pa.Table, config: AllocatorConfig, pools: Sequence[PoolRange]) -> State | None:
    """Return the segments and blocks that are older than the recording; None where they do not fit each other."""
    reserved = segments.filter(pc.equal(_actions(segments), Action.PREEXISTING.value)).sort_by("address")
    blocks = sorted(_blocks(older, config))
    addresses = [block.address for block in blocks]
    states = []
    starts, sizes, streams = (_numbers(reserved, name) for name in ("address", "bytes", "stream"))
    columns = (starts, sizes, streams_by_pool(streams, starts, pools))
    for address, num_bytes, stream in zip(*(column.tolist() for column in columns), strict=True):
        inside = blocks[bisect_left(addresses, address) : bisect_left(addresses, address + num_bytes)]
        states.append(
            SegmentState.around(
                inside,
                address=address,
                num_bytes=num_bytes,
                stream=stream,
                is_small=is_small_range(num_bytes, inside, config, is_expandable=config.expandable_segments),
                is_expandable=config.expandable_segments,
            )
        )
    return tuple(states) if active_bytes(tuple(states)) == sum(block.bytes for block in blocks) else None


def _blocks(older: pa.Table, config: AllocatorConfig) -> list[BlockState]:
    columns = (_numbers(older, name).tolist() for name in ("address", "requested_bytes", "block_bytes"))
    return [
        BlockState(address, block_bytes or round_size(requested, config), requested, BlockStatus.ALLOCATED)
        for address, requested, block_bytes in zip(*columns, strict=True)
        if requested or block_bytes
    ]


def _numbers(table: pa.Table, name: str) -> Column:
    found: Column = table[name].fill_null(0).to_numpy().astype(np.int64)
    return found

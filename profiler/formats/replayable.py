"""A snapshot's columns and segments -> the trace, the states and the settings that the allocator's replay takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.private_pools import MAX_POOLS, PoolRange, streams_by_pool, with_pool
from profiler.allocator.state import BlockState, BlockStatus, SegmentState, State
from profiler.allocator.trace import Kind, Trace
from profiler.allocator.undo import undo
from profiler.errors import FormatError
from profiler.formats.history import DeviceHistory
from profiler.formats.snapshot import Snapshot
from profiler.formats.state import FinalBlock, Segment

_NO_POOL = (0, 0)
_FREE = BlockStatus.INACTIVE


@dataclass(frozen=True, eq=False)
class DeviceReplay:
    """All that a replay of one device begins with."""

    device: int
    trace: Trace
    start: State
    final: State
    config: AllocatorConfig
    private_pools: list[PoolRange]


def replayable(snapshot: Snapshot) -> list[DeviceReplay]:
    """Return what can be replayed, by device: those with a history or with segments.

    Raises:
        FormatError: history and segments contradict each other.
        SpecError: the snapshot's settings are impossible.
    """
    config = AllocatorConfig.from_settings(snapshot.settings, snapshot.torch_version)
    histories = {history.device: history for history in snapshot.devices}
    devices = sorted(histories.keys() | {segment.device for segment in snapshot.segments})
    return [_device(device, histories.get(device), snapshot.segments, config) for device in devices]


def _device(device: int, history: DeviceHistory | None, all_segments: list[Segment], config: AllocatorConfig) -> DeviceReplay:
    segments = _with_addresses([segment for segment in all_segments if segment.device == device])
    pools = sorted({segment.pool_id for segment in segments} - {_NO_POOL})
    if len(pools) > MAX_POOLS:
        raise FormatError(f"GPU {device} has {len(pools):,} private pools; at most {MAX_POOLS:,} are replayed.")
    numbers = {_NO_POOL: 0} | {pool: number for number, pool in enumerate(pools, 1)}
    final = tuple(_state(segment, numbers[segment.pool_id]) for segment in segments)
    private = [PoolRange(device, 0, s.address or 0, s.bytes, numbers[s.pool_id]) for s in segments if s.pool_id != _NO_POOL]
    trace = Trace.of([], [], [], []) if history is None else _trace(history, private)
    return DeviceReplay(device, trace, undo(trace, final, config), final, config, private)


def _trace(history: DeviceHistory, private: list[PoolRange]) -> Trace:
    """Return the history as a trace; codes of actions are the kinds, unknown ones change nothing."""
    kind = np.where(history.actions < 0, Kind.OTHER, history.actions)
    stream = streams_by_pool(history.streams.astype(np.int64), history.addresses, private)
    return Trace.of(kind, history.addresses, history.sizes, stream)


def _with_addresses(segments: list[Segment]) -> list[Segment]:
    """Return the segments by address; those without one, as the oldest versions wrote them, get made-up ones behind the others."""
    known = [segment for segment in segments if segment.address is not None]
    driver = Driver()
    made_up = [segment._replace(address=driver.address_for(segment.bytes)) for segment in segments if segment.address is None]
    return sorted(known + made_up, key=lambda segment: segment.address or 0)


def _state(segment: Segment, pool_number: int) -> SegmentState:
    address = segment.address or 0
    return SegmentState.around(
        _active(segment.blocks, address),
        address=address,
        num_bytes=segment.bytes,
        stream=with_pool(segment.stream, pool_number),
        is_small=segment.pool == "small",
        is_expandable=segment.expandable,
    )


def _active(blocks: tuple[FinalBlock, ...], address: int) -> list[BlockState]:
    """Return the blocks of a segment that are not free; one without an address lies right behind the one before it."""
    active = []
    for start, size, requested, status, _ in blocks:
        address = address if start is None else start
        if status is not _FREE:
            active.append(BlockState(address, size, requested, status))
        address += size
    return active

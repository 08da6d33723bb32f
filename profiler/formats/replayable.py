"""A snapshot's columns and segments -> the trace, the states and the settings that the allocator's replay takes.

Memory of a private pool (CUDA graphs, MemPool) is never shared with others: such a pool is replayed as a stream of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.state import BlockState, BlockStatus, SegmentState, State
from profiler.allocator.trace import Kind, Trace
from profiler.allocator.undo import undo
from profiler.formats.history import DeviceHistory
from profiler.formats.snapshot import Snapshot
from profiler.formats.state import FinalBlock, Segment

_POOL_BIT = 50
"""Streams are pointers below this bit; above it stands the number of the private pool."""
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
    num_private_pools: int


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
    numbers = {_NO_POOL: 0} | {pool: number for number, pool in enumerate(pools, 1)}
    final = tuple(_state(segment, numbers[segment.pool_id]) for segment in segments)
    trace = Trace.of([], [], [], []) if history is None else _trace(history, final)
    return DeviceReplay(device, trace, undo(trace, final, config), final, config, len(pools))


def _trace(history: DeviceHistory, final: State) -> Trace:
    """Return the history as a trace; codes of actions are the kinds, unknown ones change nothing."""
    kind = np.where(history.actions < 0, Kind.OTHER, history.actions)
    stream = history.streams.astype(np.int64)
    for segment in final:
        if segment.stream >> _POOL_BIT:
            inside = (history.addresses >= segment.address) & (history.addresses < segment.end)
            stream = np.where(inside, segment.stream, stream)
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
        stream=segment.stream | pool_number << _POOL_BIT,
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

"""A recording -> a CUDA memory snapshot that PyTorch's viewer and ``torch.cuda._memory_viz`` open.

GPU recordings keep their addresses and segments. Recordings without an allocator (CPU, simulated) are replayed through the allocator's
rules first, so that their blocks lie where a GPU would have put them; they come out as device 0. A snapshot is one process's: it has one
history a device, so ranks that share one cannot be in one file.
"""

from __future__ import annotations

import datetime
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from profiler.allocator.allocator import CachingAllocator
from profiler.allocator.blocks import Block
from profiler.allocator.config import AllocatorConfig
from profiler.allocator.private_pools import PoolRange, pool_of, recorded_pools, streams_by_pool, without_pool
from profiler.allocator.recorded import recorded_config
from profiler.allocator.recorded_ooms import free_bytes_at_ooms
from profiler.allocator.restore import snapshot
from profiler.allocator.state import BlockState, BlockStatus, SegmentState, State
from profiler.allocator.undo import is_small_range
from profiler.errors import FormatError, SpecError, StorageError
from profiler.recording import Action, Recording

_PROTOCOL = 4
"""PyTorch's viewer reads no newer one."""
_NO_STACK = -1


class _Event(NamedTuple):
    """One entry of a history."""

    action: str
    address: int
    num_bytes: int
    stream: int
    time_us: float
    row: int
    """Of `Recording.events`; -1 for a segment's."""
    stack: int
    device_free_bytes: int | None = None
    """Where memory ran out, what the driver had left, if that is known."""


@dataclass(frozen=True)
class _History:
    """One device, ready to be written."""

    device: int
    events: list[_Event]
    final: State
    rows: dict[int, int] = field(default_factory=dict)
    """By address of the blocks at the end, their row of birth."""


def snapshot_of(recording: Recording, labels: Mapping[int, str] | None = None) -> dict[str, Any]:
    """Return a recording as the dictionary that ``torch.cuda.memory._snapshot`` returns.

    Args:
        recording: what to write; where it is about GPUs, its host memory is left out.
        labels: by block number, a text that the viewer shows beside the allocation, such as its category.

    Raises:
        SpecError: ranks share a device; take one with `profiler.formats.ranks.of_rank`.
        FormatError: its blocks overlap.
    """
    frames = _Frames(recording)
    histories = [
        _recorded(recording, device, rank) if _has_segments(recording, device) else _replayed(recording, device, max(device, 0))
        for device, rank in _rank_by_device(recording).items()
    ]
    traces: list[list[dict[str, Any]]] = [[] for _ in range(1 + max((history.device for history in histories), default=0))]
    origin = _origin_us(recording)
    for history in histories:
        traces[history.device] = list(_entries(recording, history, frames, labels or {}, origin))
    return {
        "segments": [_segment(segment, history, frames) for history in histories for segment in history.final],
        "device_traces": traces,
        "allocator_settings": recording.metadata.facts.get("allocator_settings", {}),
        "external_annotations": _annotations(recording, origin),
    }


def write_snapshot(recording: Recording, path: Path | str, labels: Mapping[int, str] | None = None) -> None:
    """Write a recording as a snapshot pickle; see `snapshot_of`.

    Raises:
        StorageError: the file cannot be written.
        SpecError, FormatError: as `snapshot_of`.
    """
    data = snapshot_of(recording, labels)
    try:
        with Path(path).open("wb") as file:
            pickle.dump(data, file, _PROTOCOL)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}. Choose another folder.") from error


def _rank_by_device(recording: Recording) -> dict[int, int]:
    """Return the devices that are written, the GPUs or else the host, and whose memory each is."""
    ranks: dict[int, set[int]] = {}
    for table in (recording.events, recording.segments):
        pairs = pa.table({"device": table["device"], "rank": table["rank"].fill_null(0)}).group_by(["device", "rank"]).aggregate([])
        for device, rank in zip(pairs["device"].to_pylist(), pairs["rank"].to_pylist(), strict=True):
            ranks.setdefault(device, set()).add(rank)
    written = sorted(device for device in ranks if device >= 0) or sorted(ranks)[-1:]
    for device in written:
        if len(ranks[device]) > 1:
            name, share = f"GPU {device}" if device >= 0 else "the host's memory", sorted(ranks[device])
            raise SpecError(
                f"Ranks {', '.join(map(str, share))} of the recording share {name}, and a snapshot has one history a device: "
                f"choose one, such as --rank {share[0]}."
            )
    return {device: ranks[device].pop() for device in written}


class _Frames:
    """Lists of frames by stack; where none was recorded, the operator and the module stand for one."""

    def __init__(self, recording: Recording) -> None:
        stacks = recording.stacks
        self._texts: dict[int, str] = dict(zip(stacks["stack"].to_pylist(), stacks["frames"].to_pylist(), strict=True))
        self._lists: dict[Any, list[dict[str, Any]]] = {}
        self._frames: dict[tuple[str, int, str], dict[str, Any]] = {}
        self._operators = recording.events["operator"].to_pylist()
        self._modules = recording.events["module"].to_pylist()

    def of(self, stack: int, row: int) -> list[dict[str, Any]]:
        """Return the frames of an event, innermost first."""
        if stack in self._texts:
            return self._lists.get(stack) or self._lists.setdefault(
                stack, [self._frame(*_parts(t)) for t in self._texts[stack].split("\n")]
            )
        key = (self._operators[row], self._modules[row]) if row >= 0 else (None, None)
        if key not in self._lists:
            named = [("operator", key[0]), ("module", key[1])]
            self._lists[key] = [self._frame(kind, 0, name) for kind, name in named if name]
        return self._lists[key]

    def _frame(self, file: str, line: int, function: str) -> dict[str, Any]:
        key = (file, line, function)
        return self._frames.setdefault(key, {"name": function, "filename": file, "line": line})


def _parts(text: str) -> tuple[str, int, str]:
    """Return file, line and function of a frame's text; file and function may hold colons themselves."""
    pieces = text.split(":")
    line = next((place for place in range(1, len(pieces) - 1) if pieces[place].isdecimal()), None)
    if line is None:
        return "", 0, text
    return ":".join(pieces[:line]), int(pieces[line]), ":".join(pieces[line + 1 :])


def _has_segments(recording: Recording, device: int) -> bool:
    return bool(pc.any(pc.equal(recording.segments["device"], device)).as_py())


def _columns(table: pa.Table, names: tuple[str, ...]) -> list[list[Any]]:
    columns = []
    for name in names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            columns.append(column.cast(pa.string()).to_pylist())
        else:
            columns.append(column.fill_null(_NO_STACK).to_pylist())
    return columns


def _device_rows(recording: Recording, device: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], pa.Table]:
    """Return the rows about a device that have bytes, and where they stand."""
    events = recording.events
    mask = pc.and_(pc.equal(events["device"], device), pc.greater(pc.coalesce(events["requested_bytes"], events["block_bytes"]), 0))
    rows = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
    return rows, events.take(pa.array(rows))


_EVENT_COLUMNS = ("action", "requested_bytes", "block_bytes", "block", "address", "stream", "time_us", "stack")


def _recorded(recording: Recording, device: int, rank: int) -> _History:
    """Return a device as it was recorded."""
    rows, events = _device_rows(recording, device)
    own: list[tuple[float, int, _Event]] = []
    ranges = _Ranges(_config(recording, device, rank))
    live: dict[int, tuple[BlockState, int]] = {}
    segments = recording.segments.filter(pc.equal(recording.segments["device"], device))
    sizes = segments.filter(pc.equal(segments["action"].cast(pa.string()), "oom"))["bytes"].to_pylist()
    free = iter(free_bytes_at_ooms(recording.metadata, device, rank, sizes))
    names = ("action", "address", "bytes", "stream", "time_us", "stack")
    for order, (action, address, num_bytes, stream, time_us, stack) in enumerate(zip(*_columns(segments, names), strict=True)):
        ranges.take(action, address, num_bytes, max(stream, 0))
        if action != Action.PREEXISTING.value:
            left = next(free) if action == "oom" else None
            own.append((time_us, -len(segments) + order, _Event(action, address, num_bytes, max(stream, 0), time_us, -1, stack, left)))
    for row, values in zip(rows.tolist(), zip(*_columns(events, _EVENT_COLUMNS), strict=True), strict=True):
        action, requested, block_bytes, block, address, stream, time_us, stack = values
        requested = block_bytes if requested < 0 else requested
        size = block_bytes if block_bytes > 0 else -(-requested // 512) * 512
        if action in (Action.ALLOC.value, Action.PREEXISTING.value):
            live[block] = (BlockState(address, size, requested, BlockStatus.ALLOCATED), row)
        elif action == Action.FREE_REQUESTED.value and block in live:
            live[block] = (live[block][0]._replace(status=BlockStatus.PENDING), live[block][1])
        else:
            live.pop(block, None)
        if action != Action.PREEXISTING.value:
            own.append((time_us, row, _Event(action, address, requested, max(stream, 0), time_us, row, stack)))
    own.sort(key=_time_and_order)
    blocks = {state.address: state for state, _ in live.values()}
    final = ranges.state(blocks, recorded_pools(recording.metadata, device, rank))
    return _History(device, [event for *_, event in own], final, {state.address: row for state, row in live.values()})


def _config(recording: Recording, device: int, rank: int) -> AllocatorConfig:
    try:
        return recorded_config(recording, device, rank)
    except SpecError:  # impossible settings of a damaged file; what was recorded under them can still be written
        return AllocatorConfig()


def _time_and_order(entry: tuple[float, int, _Event]) -> tuple[float, int]:
    return entry[0], entry[1]


def _replayed(recording: Recording, device: int, as_device: int) -> _History:
    """Return a device's blocks where the allocator, with the default settings and nothing reserved, would have put them."""
    events: list[_Event] = []
    now: list[float] = [0.0]

    def on_segment(action: str, address: int, num_bytes: int, stream: int) -> None:
        events.append(_Event(action, address, num_bytes, stream, now[0], -1, _NO_STACK))

    allocator = CachingAllocator(on_segment=on_segment)
    held: dict[int, Block] = {}
    birth_rows: dict[int, int] = {}
    rows, table = _device_rows(recording, device)
    for row, values in zip(rows.tolist(), zip(*_columns(table, _EVENT_COLUMNS), strict=True), strict=True):
        action, requested, _, block, _, stream, now[0], stack = values
        stream = max(stream, 0)
        if action in (Action.ALLOC.value, Action.PREEXISTING.value):
            found = allocator.malloc(requested, stream)
            assert isinstance(found, Block), "a driver without a limit gives what is asked for"
            held[block], birth_rows[block] = found, row
            if action == Action.PREEXISTING.value:
                events.clear()  # it is older than the history, and so is what was reserved for it
            else:
                events.append(_Event("alloc", found.address, requested, stream, now[0], row, stack))
        elif block in held:
            found = held.pop(block)
            events += [_Event(free, found.address, requested, stream, now[0], row, stack) for free in ("free_requested", "free_completed")]
            allocator.free(found)
    return _History(as_device, events, snapshot(allocator), {found.address: birth_rows[block] for block, found in held.items()})


class _Ranges:
    """What is reserved: whole segments, and mapped pages that join where they touch and are cut where unmapped."""

    def __init__(self, config: AllocatorConfig) -> None:
        self._config = config
        self._whole: dict[int, tuple[int, int]] = {}
        self._pages: list[tuple[int, int, int]] = []

    def take(self, action: str, address: int, num_bytes: int, stream: int) -> None:
        """Do what a row says."""
        end = address + num_bytes
        if action == "segment_map" or (action == Action.PREEXISTING.value and self._config.expandable_segments):
            self._pages.append((address, end, stream))
        elif action in ("segment_alloc", Action.PREEXISTING.value):
            self._whole[address] = (num_bytes, stream)
        elif action == "segment_free":
            self._whole.pop(address, None)
        elif action == "segment_unmap":
            pieces = [piece for low, high, of in self._pages for piece in ((low, min(high, address), of), (max(low, end), high, of))]
            self._pages = [piece for piece in pieces if piece[0] < piece[1]]

    def state(self, blocks: dict[int, BlockState], pools: Sequence[PoolRange]) -> State:
        """Return the segments with the blocks that are in them; those of private pools are on streams of their own."""
        order = sorted(blocks)
        states = []
        for address, end, stream, expandable in self._joined(pools):
            size = end - address
            low, high = np.searchsorted(order, [address, end])
            inside = [blocks[where] for where in order[low:high]]
            small = is_small_range(size, inside, self._config, is_expandable=expandable)
            states.append(
                SegmentState.around(inside, address=address, num_bytes=size, stream=stream, is_small=small, is_expandable=expandable)
            )
        if sum(len(state.active_blocks) for state in states) != len(blocks):
            raise FormatError("Blocks of the recording lie outside of what it says was reserved. Record it again, or write another format.")
        return tuple(states)

    def _joined(self, pools: Sequence[PoolRange]) -> list[tuple[int, int, int, bool]]:
        """Return address, end, stream and whether it is expandable of each range; pages of one stream and pool that touch are one."""
        rows = sorted([(low, low + size, of, False) for low, (size, of) in self._whole.items()] + [(*row, True) for row in self._pages])
        streams = streams_by_pool(np.array([row[2] for row in rows], np.int64), np.array([row[0] for row in rows], np.int64), pools)
        joined: list[tuple[int, int, int, bool]] = []
        for (low, high, _, expandable), stream in zip(rows, streams.tolist(), strict=True):
            if expandable and joined and joined[-1][1:] == (low, stream, True):
                joined[-1] = (joined[-1][0], high, stream, True)
            else:
                joined.append((low, high, stream, expandable))
        return joined


def _entries(recording: Recording, history: _History, frames: _Frames, labels: Mapping[int, str], origin: int) -> Iterator[dict[str, Any]]:
    blocks = recording.events["block"].to_pylist() if labels else []
    for event in history.events:
        entry: dict[str, Any] = {"action": event.action, "addr": event.address, "size": event.num_bytes, "stream": event.stream}
        if event.action == "oom":
            entry["device_free"] = event.device_free_bytes or 0  # torch's tools need a number
            del entry["addr"]
        label = labels.get(blocks[event.row], "") if blocks and event.row >= 0 else ""
        entry |= {"time_us": origin + int(event.time_us), "compile_context": "N/A", "user_metadata": label}
        yield entry | {"frames": frames.of(event.stack, event.row)}


def _segment(segment: SegmentState, history: _History, frames: _Frames) -> dict[str, Any]:
    active = segment.active_blocks
    allocated = [block for block in active if block.status is BlockStatus.ALLOCATED]
    blocks = []
    for block in segment.blocks:
        row = history.rows.get(block.address, -1) if block.status is not BlockStatus.INACTIVE else -1
        shown = {"address": block.address, "size": block.bytes, "requested_size": block.requested_bytes, "state": block.status.value}
        blocks.append(shown | {"frames": frames.of(_NO_STACK, row)})
    return {
        "device": history.device,
        "address": segment.address,
        "total_size": segment.bytes,
        "allocated_size": sum(block.bytes for block in allocated),
        "active_size": sum(block.bytes for block in active),
        "requested_size": sum(block.requested_bytes for block in active),
        "stream": without_pool(segment.stream),
        "segment_type": "small" if segment.is_small else "large",
        "segment_pool_id": (0, pool_of(segment.stream)),
        "is_expandable": segment.is_expandable,
        "frames": [],
        "blocks": blocks,
    }


def _annotations(recording: Recording, origin: int) -> list[dict[str, Any]]:
    """Return the marks as annotations: phases and regions under their names, steps as a profiler names them."""
    rows = []
    for mark in recording.marks.to_pylist():
        name = f"ProfilerStep#{mark['step']}" if mark["kind"] == "step" else mark["name"]
        if mark["start_us"] is not None and mark["end_us"] is not None and name:
            for stage, time_us in (("START", mark["start_us"]), ("END", mark["end_us"])):
                rows.append({"stage": stage, "name": name, "device": 0, "time_us": origin + int(time_us)})
    return sorted(rows, key=_time_us)


def _time_us(row: dict[str, Any]) -> int:
    return int(row["time_us"])


def _origin_us(recording: Recording) -> int:
    try:
        created = datetime.datetime.fromisoformat(recording.metadata.created)
    except ValueError:
        return 0
    return max(int(created.timestamp() * 1e6), 0)

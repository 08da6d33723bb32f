"""A CUDA snapshot -> a recording: who was born, who died, what was reserved, and, as far as declared rules tell, what for."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from profiler.allocator.config import unread
from profiler.allocator.private_pools import FACT, MAX_RANGES, without_pool
from profiler.allocator.recorded_ooms import RecordedOom, oom_facts
from profiler.allocator.verify import verify
from profiler.errors import FormatError, SpecError
from profiler.formats.attribution import OLDER, OLDER_ONLY, Attribution, attribute
from profiler.formats.history import ACTIONS, Array, DeviceHistory
from profiler.formats.lives import ACTIONS as ROW_ACTIONS
from profiler.formats.lives import ALLOC, PREEXISTING, UNKNOWN_BYTES, Lives, trace_lives
from profiler.formats.matching import StackMatcher
from profiler.formats.phases import PHASES, EventPhases, Interval, event_phases, intervals_of, stack_phases
from profiler.formats.progress import part_of
from profiler.formats.replayable import DeviceReplay, replayable
from profiler.formats.rules import Rules, read_rules
from profiler.formats.snapshot import Snapshot
from profiler.recording import EVENTS, MARKS, SEGMENTS, STACKS, Action, Metadata, Provenance, Recording
from profiler.units import MIB

_FIRST_SEGMENT_ACTION = ACTIONS.index("segment_alloc")
_MAX_MARKS = 200_000
_TIE_US = 1e-3
_REPLAYED_SHARE = 0.7
"""Of the time that a device takes, its replay."""


@dataclass(frozen=True, eq=False)
class _Device:
    """One device on its way into the recording."""

    history: DeviceHistory
    lives: Lives
    ran: EventPhases
    what: Attribution
    events_us: Array
    """Of the history's events, since the recording began."""
    times_us: Array
    """Of the rows."""
    reserved: list[tuple[int, int, int]]
    """Address, bytes and stream of what was reserved at the start."""


def to_recording(
    snapshot: Snapshot,
    *,
    parameter_bytes: Iterable[int] = (),
    rules: Rules | None = None,
    progress: Callable[[float], None] | None = None,
) -> Recording:
    """Return a snapshot as a recording.

    Args:
        snapshot: what `read_snapshot` returned.
        parameter_bytes: sizes of the parameters, one each, of the model that the user says it was; tells parameters and optimizer state
            among what is older than the recording.
        rules: by default Headroom's own (`read_rules`).
        progress: called now and then with the share that is done, 0 to 1.

    Raises:
        FormatError: the snapshot holds nothing to show.
    """
    rules = rules or read_rules()
    warnings = [*snapshot.warnings, *unread(snapshot.settings)]
    sizes = tuple(parameter_bytes)
    origin = _origin(snapshot)
    intervals = intervals_of(snapshot.external_annotations)
    stacks = StackMatcher(snapshot)
    by_stack = stack_phases(stacks, rules)
    histories = {history.device: history for history in snapshot.devices}
    replays = _replays(snapshot, warnings)
    numbers = sorted(histories.keys() | {segment.device for segment in snapshot.segments})
    if not numbers:
        raise FormatError(f"{snapshot.name} holds no segments and no history. Record with torch.cuda.memory._record_memory_history on.")
    devices = []
    for place, number in enumerate(numbers):
        history = histories.get(number) or _no_history(number)
        part = part_of(progress, place / len(numbers), (place + _REPLAYED_SHARE) / len(numbers))
        lives, reserved = _lives(snapshot, history, replays.get(number), warnings, part)
        events_us = _clock(history, origin)
        times = _times(events_us, lives)
        own = [interval for interval in intervals if history.times_us is not None]
        clock = None if history.times_us is None else times
        num_older = int((lives.action == PREEXISTING).sum())
        ran = event_phases(lives.stack, clock, by_stack, stacks.python, _since(own, origin), rules, num_older=num_older)
        what = attribute(stacks, history, lives, ran, rules, sizes)
        devices.append(_Device(history, lives, ran, what, events_us, times, reserved))
    return Recording(
        metadata=_metadata(snapshot, devices, warnings, origin, _private_pools(replays, warnings)),
        events=_events(devices),
        segments=_segments(devices),
        marks=_marks(devices, _since(intervals, origin)),
        stacks=_stacks(snapshot),
    )


def _lives(
    snapshot: Snapshot, history: DeviceHistory, replay: DeviceReplay | None, warnings: list[str], progress: Callable[[float], None] | None
) -> tuple[Lives, list[tuple[int, int, int]]]:
    """Return a device's rows, and what was reserved when its history began."""
    final_stacks = {
        block.address: block.stack
        for segment in snapshot.segments
        for block in segment.blocks
        if segment.device == history.device and block.address is not None
    }
    if replay is None:
        lives = trace_lives(history, None, final_stacks, None)
    else:
        check = verify(replay.trace, replay.start, replay.final, replay.config, progress)
        if not check.is_exact:
            warnings.append(
                f"GPU {history.device}: not all of the allocator's decisions could be reproduced (first: {check.first_difference}); what "
                "was allocated in the history is shown without rounding."
            )
        lives = trace_lives(history, replay.start, final_stacks, np.array(check.block_bytes, np.int64) if check.is_exact else None)
    if lives.num_dropped or lives.num_unseen_frees:
        warnings.append(
            f"GPU {history.device}: {lives.num_dropped:,} frees of blocks that were free already are left out, and "
            f"{lives.num_unseen_frees:,} frees that were not recorded are put where the address was given out again."
        )
    if len(history) <= 1:
        warnings.append(
            f"GPU {history.device}: no history was recorded, so only what was held at the end is shown. Call "
            "torch.cuda.memory._record_memory_history before the run."
        )
    elif (lives.action == PREEXISTING).any():
        num_older = int((lives.action == PREEXISTING).sum())
        warnings.append(f"GPU {history.device}: {num_older:,} blocks are older than the recording; where they were made is not known.")
    reserved = [(segment.address, segment.bytes, without_pool(segment.stream)) for segment in (replay.start if replay else ())]
    return lives, reserved


def _replays(snapshot: Snapshot, warnings: list[str]) -> dict[int, DeviceReplay]:
    try:
        return {replay.device: replay for replay in replayable(snapshot)}
    except (FormatError, SpecError) as error:
        warnings.append(
            f"The state before the history could not be rebuilt ({error}) What is older than it and was never freed is missing."
        )
        return {}


def _no_history(device: int) -> DeviceHistory:
    empty = np.empty(0, np.int64)
    return DeviceHistory(device, empty.astype(np.int8), empty, empty, empty, empty, empty.astype(np.int32))


def _origin(snapshot: Snapshot) -> int:
    """Return the instant at which the recording begins: the first event of any device."""
    return min((int(history.times_us[0]) for history in snapshot.devices if history.times_us is not None), default=0)


def _since(intervals: list[Interval], origin: int) -> list[Interval]:
    return [Interval(found.name, found.start_us - origin, found.end_us - origin) for found in intervals]


def _clock(history: DeviceHistory, origin: int) -> Array:
    """Return the events' times, never falling; without a clock the number of the event.

    Torch counts whole microseconds. Events of one microsecond are told apart by thousandths, so that time alone keeps their order.
    """
    places = np.arange(len(history))
    if history.times_us is None or not len(history):
        return places.astype(np.float64)
    times = np.maximum.accumulate(history.times_us - origin)
    firsts = np.maximum.accumulate(np.where(np.diff(times, prepend=times[0] - 1) > 0, places, 0))
    return np.asarray(times + np.minimum((places - firsts) * _TIE_US, 1 - _TIE_US))


def _times(clock: Array, lives: Lives) -> Array:
    """Return the rows' times; what is older is put at the beginning."""
    return np.where(lives.source >= 0, clock[np.maximum(lives.source, 0)], 0.0) if len(clock) else np.zeros(len(lives))


def _events(devices: list[_Device]) -> pa.Table:
    offsets = np.cumsum([0] + [len(device.lives.birth) for device in devices])
    tables = [_device_events(device, int(offset)) for device, offset in zip(devices, offsets, strict=False)]
    events = pa.concat_tables(tables)
    if len(tables) > 1:
        order = np.argsort(events["time_us"].to_numpy(), kind="stable")
        events = events.unify_dictionaries().take(pa.array(order))
    return events.combine_chunks()


def _device_events(device: _Device, first_block: int) -> pa.Table:
    lives, what = device.lives, device.what
    num_rows = len(lives)
    born = lives.action <= ALLOC
    phase = device.ran.phase.copy()
    phase[lives.birth] = what.phase
    older = born & (what.rule == what.names.index(OLDER_ONLY))[lives.block]
    sizes = np.where(lives.block_bytes == UNKNOWN_BYTES, lives.requested_bytes, lives.block_bytes)
    arrays = {
        "time_us": pa.array(device.times_us),
        "device": _constant(lives.device, num_rows),
        "rank": _constant(0, num_rows),
        "step": pa.array(device.ran.step),
        "phase": _coded(phase, [member.value for member in PHASES]),
        "action": _coded(lives.action, [member.value for member in ROW_ACTIONS]),
        "requested_bytes": pa.array(lives.requested_bytes),
        "block_bytes": pa.array(lives.block_bytes, mask=lives.block_bytes == UNKNOWN_BYTES),
        "block": pa.array(lives.block + first_block),
        "address": pa.array(lives.address),
        "pool": _coded((sizes > MIB).astype(np.int8), ["small", "large"]),
        "stream": pa.array(lives.stream),
        "roles": pa.array(np.where(born, what.roles[lives.block], 0).astype(np.int32)),
        "tensor": _coded(np.where(older, 0, -1), [OLDER]),
        "stack": pa.array(lives.stack, mask=lives.stack < 0),
    }
    return _table(EVENTS, arrays, num_rows)


def _segments(devices: list[_Device]) -> pa.Table:
    tables = []
    for device in devices:
        history, start = device.history, np.array(device.reserved, np.int64).reshape(-1, 3).T
        rows = np.flatnonzero(history.actions >= _FIRST_SEGMENT_ACTION)
        num_start, num_rows = len(device.reserved), len(device.reserved) + len(rows)
        names = [*ACTIONS, Action.PREEXISTING.value]
        action = np.concatenate([np.full(num_start, len(names) - 1), history.actions[rows]])
        addresses = np.concatenate([start[0], history.addresses[rows]])
        stacks = np.concatenate([np.full(num_start, -1), history.stacks[rows]])
        arrays = {
            "time_us": pa.array(np.concatenate([np.zeros(num_start), device.events_us[rows]])),
            "device": _constant(history.device, num_rows),
            "rank": _constant(0, num_rows),
            "action": _coded(action, names),
            "address": pa.array(addresses, mask=addresses < 0),
            "bytes": pa.array(np.concatenate([start[1], history.sizes[rows]])),
            "stream": pa.array(np.concatenate([start[2], history.streams[rows]])),
            "stack": pa.array(stacks.astype(np.int32), mask=stacks < 0),
        }
        tables.append(_table(SEGMENTS, arrays, num_rows))
    return pa.concat_tables(tables).unify_dictionaries().sort_by("time_us").combine_chunks()


def _marks(devices: list[_Device], intervals: list[Interval]) -> pa.Table:
    """Return the steps and phases of the busiest device, and every annotation as a region."""
    busiest = max(devices, key=_num_rows)
    ran, times = busiest.ran, busiest.times_us
    rows = [("region", found.name, float(found.start_us), float(found.end_us), -1) for found in intervals[:_MAX_MARKS]]
    num_older = int((busiest.lives.action == PREEXISTING).sum())
    for kind, column in (("step", ran.step[num_older:]), ("phase", ran.run[num_older:])):
        begins = num_older + np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1]])) if len(column) else np.empty(0, np.int64)
        ends = np.append(begins[1:], num_older + len(column)) - 1
        for first, last in zip(begins.tolist()[:_MAX_MARKS], ends.tolist(), strict=False):
            step = int(ran.step[first])
            if kind == "phase" or step >= 0:
                name = PHASES[int(ran.phase[first])].value if kind == "phase" else f"step {step}"
                rows.append((kind, name, float(times[first]), float(times[last]), step))
    names = ("kind", "name", "start_us", "end_us", "step")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
    arrays = {name: pa.array(values) for name, values in columns.items()}
    arrays = {name: array.dictionary_encode() if name in ("kind", "name") else array for name, array in arrays.items()}
    return _table(MARKS, arrays | {"rank": _constant(0, len(rows))}, len(rows))


def _stacks(snapshot: Snapshot) -> pa.Table:
    frames = [str(frame) for frame in snapshot.frames]
    texts = ["\n".join([frames[frame] for frame in stack]) for stack in snapshot.stacks]
    return pa.table({"stack": pa.array(range(len(texts)), pa.int32()), "frames": pa.array(texts, pa.string())}, schema=STACKS)


def _private_pools(replays: dict[int, DeviceReplay], warnings: list[str]) -> dict[str, Any]:
    """Return the fact that says which segments are of private pools; nothing where there are none."""
    ranges = [found._asdict() for replay in replays.values() for found in replay.private_pools]
    if len(ranges) > MAX_RANGES:
        warnings.append(f"{len(ranges):,} segments are of private pools, too many to keep: a replay takes them for the pools of all.")
    return {FACT: ranges} if 0 < len(ranges) <= MAX_RANGES else {}


def _metadata(snapshot: Snapshot, devices: list[_Device], warnings: list[str], origin: int, pools: dict[str, Any]) -> Metadata:
    created = datetime.datetime.fromtimestamp(origin / 1e6, datetime.UTC) if 0 < origin < 2**52 else datetime.datetime.now(datetime.UTC)
    ooms = [
        RecordedOom(device.history.device, int(device.history.sizes[row]), free)
        for device in devices
        for row, free in device.history.device_free_bytes.items()
    ]
    facts: dict[str, Any] = {
        "category_rules": _coverage(devices),
        "allocator_settings": snapshot.settings,
        "torch_version": list(snapshot.torch_version),
        "origin_us": origin,
    }
    return Metadata(
        title=f"{snapshot.name} · CUDA snapshot",
        provenance=Provenance.IMPORTED,
        engine=f"CUDA memory snapshot, torch {snapshot.torch_version_guess}",
        created=created.isoformat(timespec="microseconds"),
        device={"kind": "cuda"},
        facts=facts | pools | oom_facts(ooms),
        warnings=[f"Categories are told by rules from stacks, annotations and lifetimes; torch {snapshot.torch_version_guess}.", *warnings],
    )


def _coverage(devices: list[_Device]) -> list[dict[str, Any]]:
    """Return per rule how many blocks it named, of how many bytes, and how many of the bytes at the peak of allocated."""
    found: dict[str, dict[str, Any]] = {}
    for device in devices:
        lives, what = device.lives, device.what
        sizes = np.where(lives.block_bytes == UNKNOWN_BYTES, lives.requested_bytes, lives.block_bytes)[lives.birth]
        at_peak = _alive_at_peak(lives, sizes)
        for number, name in enumerate(what.names):
            chosen = what.rule == number
            if chosen.any():
                row = found.setdefault(name, {"rule": name, "num_blocks": 0, "total_bytes": 0, "peak_bytes": 0})
                row["num_blocks"] += int(chosen.sum())
                row["total_bytes"] += int(sizes[chosen].sum())
                row["peak_bytes"] += int(sizes[chosen & at_peak].sum())
    return sorted(found.values(), key=_peak_bytes, reverse=True)


def _alive_at_peak(lives: Lives, sizes: Array) -> Array:
    change = np.zeros(len(lives) + 1, np.int64)
    np.add.at(change, lives.birth, sizes)
    np.subtract.at(change, lives.death, sizes)
    peak = int(np.argmax(np.cumsum(change)))
    return (lives.birth <= peak) & (lives.death > peak)


def _peak_bytes(row: dict[str, Any]) -> int:
    return int(row["peak_bytes"])


def _num_rows(device: _Device) -> int:
    return len(device.lives)


def _constant(value: int, num_rows: int) -> pa.Array:
    return pa.array(np.full(num_rows, value, np.int16))


def _coded(codes: Array, names: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=codes < 0), pa.array(names, pa.string()))


def _table(schema: pa.Schema, arrays: dict[str, pa.Array], num_rows: int) -> pa.Table:
    """Return a table of ``schema``; columns that are not given are null."""
    columns = [arrays[field.name].cast(field.type) if field.name in arrays else pa.nulls(num_rows, field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)

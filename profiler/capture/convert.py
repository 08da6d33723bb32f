"""Windows of raw profiler events -> parts of a recording: who was born, who died, and what each block is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from profiler.capture.notes import Label, Note
from profiler.capture.phases import output_intervals, phase_intervals
from profiler.capture.window import Interval, MemoryEvent, RawWindow
from profiler.recording import EVENTS, MARKS, OPERATORS, Action, Phase, Role
from profiler.storage import LABELS

_LASTING = int(Role.PARAMETER | Role.MASTER_PARAMETER | Role.BUFFER | Role.GRADIENT | Role.OPTIMIZER_STATE | Role.INPUT)
"""Roles of tensors that count although torch never reported them: made before the recording, or in mapped or foreign memory."""


@dataclass(slots=True)
class _Block:
    """A block that is alive."""

    number: int
    num_bytes: int
    roles: int
    row: int
    """Its row of birth in the window being converted; -1 if born in an earlier one."""
    reported: bool
    """Torch reported its birth, so it will report its death."""


@dataclass(frozen=True)
class Structure:
    """What the hooks know of the models."""

    output_layers: frozenset[str]
    leaves: frozenset[str]


class Converter:
    """Converts one window after another; blocks live on across windows."""

    def __init__(self, origin_ns: int, rank: int) -> None:
        self._origin_ns = origin_ns
        self._rank = rank
        self._live: dict[tuple[int, int], _Block] = {}
        self._num_blocks = 0
        self._torch_offset: dict[int, int] = {}
        self._torch_bytes: dict[int, int] = {}
        self.num_disagreements = 0
        """Events at which torch's own total was not the sum of its events; must stay 0."""
        self.num_unreported_frees = 0

    @property
    def allocated_bytes(self) -> int:
        """Bytes alive at the end of the last window, on all devices."""
        return sum(block.num_bytes for block in self._live.values())

    def convert(self, raw: RawWindow, step: int, preexisting: list[Label], structure: Structure) -> dict[str, pa.Table]:
        """Return the window's parts: tables ``events``, ``operators``, ``marks`` and ``labels``.

        Args:
            raw: what the window saw.
            step: the step it belongs to; -1 before the first.
            preexisting: what is alive when the window begins and was never reported.
            structure: the models' layers.
        """
        rows = _Rows()
        late: dict[int, Label] = {}
        for found in preexisting:
            self._found(found, raw.start_ns, rows, reported=False)
        for found in self._freed_unseen(raw):
            self._found(found, raw.start_ns, rows, reported=True)
        for event in raw.events:
            if isinstance(event, MemoryEvent):
                self._memory(event, rows)
            else:
                self._note(event.note, event.time_ns, rows, late)
        phases = phase_intervals(raw)
        rows.add_role(Role.OUTPUT, output_intervals(raw, phases, structure.output_layers, structure.leaves))
        for block in self._live.values():
            if block.row >= 0:
                block.roles, block.row = rows.roles[block.row], -1
        return {
            "events": rows.to_table(self._origin_ns, step, self._rank, phases),
            "operators": _operators(raw, self._origin_ns, step, self._rank, phases),
            "marks": _marks(raw, self._origin_ns, step, self._rank, phases),
            "labels": _labels(late),
        }

    def _memory(self, event: MemoryEvent, rows: _Rows) -> None:
        key = (event.device, event.pointer)
        if event.num_bytes > 0:
            if key in self._live:
                # Its death was never reported: it was made before the recording and freed where nobody looked.
                self.num_unreported_frees += 1
                self._free(key, event.time_ns, rows)
            self._birth(key, event, rows)
        else:
            self._free(key, event.time_ns, rows)
        total = self._torch_bytes.get(event.device, 0) + event.num_bytes
        self._torch_bytes[event.device] = total
        offset = self._torch_offset.setdefault(event.device, event.total_allocated - total)
        self.num_disagreements += event.total_allocated - total != offset

    def _birth(self, key: tuple[int, int], event: MemoryEvent, rows: _Rows) -> None:
        block = _Block(self._num_blocks, event.num_bytes, int(Role.RECOMPUTED) if event.recomputed else 0, len(rows.times), True)
        self._num_blocks += 1
        self._live[key] = block
        rows.add(event.time_ns, Action.ALLOC, block, key)
        rows.modules[-1], rows.operators[-1] = event.module, event.operator

    def _free(self, key: tuple[int, int], time_ns: int, rows: _Rows) -> None:
        rows.add(time_ns, Action.FREE_REQUESTED if key[0] >= 0 else Action.FREE_COMPLETED, self._live.pop(key), key)
        rows.roles[-1] = 0

    def _freed_unseen(self, raw: RawWindow) -> list[Label]:
        """Return the blocks that die in this window and whose birth no window saw: torch knows them from an earlier profile."""
        born: set[tuple[int, int]] = set(self._live)
        unseen = []
        for event in raw.events:
            if isinstance(event, MemoryEvent):
                key = (event.device, event.pointer)
                if event.num_bytes > 0:
                    born.add(key)
                elif key not in born:
                    unseen.append(Label(event.pointer, -event.num_bytes, event.device, 0, "", "", None))
                    born.add(key)
        return unseen

    def _found(self, found: Label, time_ns: int, rows: _Rows, *, reported: bool) -> None:
        """Count a block that was alive when the window began."""
        key = (found.device, found.pointer)
        if key in self._live:
            return
        block = _Block(self._num_blocks, found.num_bytes, found.roles, len(rows.times), reported)
        self._num_blocks += 1
        self._live[key] = block
        rows.add(time_ns, Action.PREEXISTING, block, key)
        rows.name(block.row, found)

    def _note(self, note: Note, time_ns: int, rows: _Rows, late: dict[int, Label]) -> None:
        if note.kind == "gone":
            key = (-1, note.pointer)
            block = self._live.get(key)
            if block is not None and not block.reported:
                self._free(key, time_ns, rows)
            return
        for found in note.labels:
            block = self._live.get((found.device, found.pointer))
            if block is None:
                if found.roles & _LASTING:
                    self._found(found, time_ns, rows, reported=False)
            elif block.row >= 0:
                rows.roles[block.row] |= found.roles
                rows.name(block.row, found)
            elif found.roles & ~block.roles:
                block.roles |= found.roles
                known = late.get(block.number, found)
                late[block.number] = known._replace(roles=found.roles | known.roles, tensor=known.tensor or found.tensor)


class _Rows:
    """The events of one window, column by column."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.actions: list[Action] = []
        self.devices: list[int] = []
        self.addresses: list[int] = []
        self.blocks: list[int] = []
        self.sizes: list[int] = []
        self.roles: list[int] = []
        self.modules: list[str | None] = []
        self.operators: list[str | None] = []
        self.names: dict[int, Label] = {}

    def add(self, time_ns: int, action: Action, block: _Block, key: tuple[int, int]) -> None:
        self.times.append(time_ns)
        self.actions.append(action)
        self.devices.append(key[0])
        self.addresses.append(key[1])
        self.blocks.append(block.number)
        self.sizes.append(block.num_bytes)
        self.roles.append(block.roles)
        self.modules.append(None)
        self.operators.append(None)

    def name(self, row: int, found: Label) -> None:
        """Keep the first tensor seen in a block, and a name as soon as one is known."""
        known = self.names.get(row)
        if known is None or (known.tensor is None and found.tensor is not None):
            self.names[row] = found

    def add_role(self, role: Role, intervals: list[Interval]) -> None:
        """Give ``role`` to the blocks that were born within the intervals."""
        times = np.asarray(self.times, np.int64)
        for interval in intervals:
            inside = np.flatnonzero((times >= interval.start_ns) & (times < interval.end_ns))
            for row in inside.tolist():
                if self.actions[row] is Action.ALLOC:
                    self.roles[row] |= int(role)

    def to_table(self, origin_ns: int, step: int, rank: int, phases: list[Interval]) -> pa.Table:
        num_rows = len(self.times)
        sizes = np.asarray(self.sizes, np.int64)
        devices = np.asarray(self.devices, np.int16)
        named = [self.names.get(row) for row in range(num_rows)]
        columns: dict[str, Any] = {
            "time_us": _microseconds(self.times, origin_ns),
            "device": devices,
            "rank": np.full(num_rows, rank, np.int16),
            "step": np.full(num_rows, step, np.int32),
            "phase": _phase_names(self.times, phases),
            "action": [action.value for action in self.actions],
            "requested_bytes": sizes,
            "block_bytes": pa.array(sizes, mask=devices < 0),
            "block": np.asarray(self.blocks, np.int64),
            "address": np.asarray(self.addresses, np.int64),
            "roles": np.asarray(self.roles, np.int32),
            "module": self.modules,
            "operator": self.operators,
            "dtype": [found.dtype or None if found else None for found in named],
            "shape": [found.shape if found and found.dtype else None for found in named],
            "tensor": [found.tensor if found else None for found in named],
        }
        return _table(EVENTS, columns, num_rows)


def _operators(raw: RawWindow, origin_ns: int, step: int, rank: int, phases: list[Interval]) -> pa.Table:
    calls = raw.calls
    times = [call.time_ns for call in calls]
    columns = {
        "time_us": _microseconds(times, origin_ns),
        "duration_us": np.asarray([call.duration_ns for call in calls], np.float64) / 1e3,
        "rank": np.full(len(calls), rank, np.int16),
        "step": np.full(len(calls), step, np.int32),
        "phase": _phase_names(times, phases),
        "module": [call.module for call in calls],
        "operator": [call.operator for call in calls],
    }
    return _table(OPERATORS, columns, len(calls))


def _marks(raw: RawWindow, origin_ns: int, step: int, rank: int, phases: list[Interval]) -> pa.Table:
    regions = [interval for interval in raw.intervals if interval.kind == "region"]
    whole = [Interval("step", f"step {step}", raw.start_ns, raw.end_ns)] if step >= 0 else []
    marks = [*whole, *phases, *regions]
    columns = {
        "kind": [mark.kind for mark in marks],
        "name": [str(mark.name) for mark in marks],
        "start_us": _microseconds([mark.start_ns for mark in marks], origin_ns),
        "end_us": _microseconds([mark.end_ns for mark in marks], origin_ns),
        "step": np.full(len(marks), step, np.int32),
        "rank": np.full(len(marks), rank, np.int16),
    }
    return _table(MARKS, columns, len(marks))


def _labels(late: dict[int, Label]) -> pa.Table:
    columns = {
        "block": list(late),
        "roles": [found.roles for found in late.values()],
        "dtype": [found.dtype for found in late.values()],
        "shape": [found.shape for found in late.values()],
        "tensor": [found.tensor for found in late.values()],
    }
    return pa.table(columns, schema=LABELS)


def _table(schema: pa.Schema, columns: dict[str, Any], num_rows: int) -> pa.Table:
    """Return a table of ``schema``; columns that are not given are null."""
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if values is None:
            arrays.append(pa.nulls(num_rows, field.type))
        elif pa.types.is_dictionary(field.type):
            arrays.append(pa.array(values, pa.string()).dictionary_encode().cast(field.type))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _microseconds(times: list[int], origin_ns: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return (np.asarray(times, np.int64) - origin_ns) / 1e3


def _phase_names(times: list[int], phases: list[Interval]) -> list[str]:
    """Return the phase at each time; between phases it is other."""
    if not phases:
        return [Phase.OTHER.value] * len(times)
    moments = np.asarray(times, np.int64)
    index = np.searchsorted([phase.start_ns for phase in phases], moments, side="right") - 1
    ends = np.asarray([phase.end_ns for phase in phases])
    inside = (index >= 0) & (moments <= ends[index])
    names = [str(phase.name) for phase in phases]
    return [names[i] if hit else Phase.OTHER.value for i, hit in zip(index.tolist(), inside.tolist(), strict=True)]

"""Windows of raw profiler events -> parts of a recording: who was born, who died, and what each block is for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from profiler.recording import MARKS, OPERATORS, Action, Role
from profiler.storage import LABELS
from profiler.tracing.notes import Label, Note
from profiler.tracing.phases import output_intervals, phase_intervals, update_intervals
from profiler.tracing.raw import ExistingBlock, FreeCompleted, Interval, MemoryEvent, RawWindow, Structure
from profiler.tracing.rows import Block, EventRows, microseconds, phase_names, to_columns
from profiler.tracing.workspaces import is_workspace

_LASTING = int(Role.PARAMETER | Role.MASTER_PARAMETER | Role.BUFFER | Role.GRADIENT | Role.OPTIMIZER_STATE | Role.INPUT)
"""Roles of tensors that count although torch never reported them: made before the recording, or in mapped or foreign memory."""


class Converter:
    """Converts one window after another; blocks live on across windows."""

    def __init__(self, origin_ns: int, rank: int) -> None:
        self._origin_ns = origin_ns
        self._rank = rank
        self._live: dict[tuple[int, int], Block] = {}
        self._num_blocks = 0
        self._completing: dict[tuple[int, int], Block] = {}
        """Blocks on GPUs whose free was requested, and whose memory a stream may still use."""
        self._existing: list[ExistingBlock] = []
        self._allocator_is_known = False
        self._tells_completion = False
        """Whether the end of a free on a GPU is an event of its own."""
        self._workspace_sizes: frozenset[int] = frozenset()
        self._torch_offset: dict[int, int] = {}
        self._torch_bytes: dict[int, int] = {}
        self.num_disagreements = 0
        """Events at which torch's own total was not the sum of its events; must stay 0."""
        self.num_unreported_frees = 0

    @property
    def allocated_bytes(self) -> int:
        """Bytes alive at the end of the last window, on all devices."""
        return sum(block.num_bytes for block in self._live.values())

    def begin(self, existing: list[ExistingBlock], workspace_sizes: frozenset[int], *, tells_completion: bool = True) -> None:
        """Count what the CUDA allocator holds before the first window; from then on it alone says what is alive on GPUs.

        Args:
            existing: its blocks, as the allocator tells them.
            workspace_sizes: bytes of a cuBLAS workspace.
            tells_completion: whether the allocator tells when a block's memory can be used again; a simulated one frees at once.
        """
        self._existing = existing
        self._allocator_is_known = True
        self._tells_completion = tells_completion
        self._workspace_sizes = workspace_sizes
        for block in existing:
            if not block.freed:
                self._torch_offset[block.device] = self._torch_offset.get(block.device, 0) + block.num_bytes

    def convert(self, raw: RawWindow, step: int, preexisting: list[Label], structure: Structure) -> dict[str, pa.Table]:
        """Return the window's parts: tables ``events``, ``operators``, ``marks`` and ``labels``.

        Args:
            raw: what the window saw.
            step: the step it belongs to; -1 before the first.
            preexisting: what is alive when the window begins and was never reported.
            structure: the models' layers.
        """
        rows = EventRows()
        late: dict[int, Label] = {}
        self._begin_window(raw, preexisting, rows)
        for event in raw.events:
            if isinstance(event, MemoryEvent):
                self._memory(event, rows)
            elif isinstance(event, FreeCompleted):
                self._complete((event.device, event.pointer), event.time_ns, rows)
            else:
                self._note(event.note, event.time_ns, rows, late)
        self._mark_workspaces(rows)
        phases = phase_intervals(raw)
        rows.add_role(Role.OUTPUT, output_intervals(raw, phases, structure.output_layers, structure.leaves))
        rows.add_role(Role.UPDATE, update_intervals(raw, phases))
        for block in self._live.values():
            if block.row >= 0:
                block.roles, block.row = rows.roles[block.row], -1
        return {
            "events": rows.to_table(self._origin_ns, step, self._rank, phases),
            "operators": _operators(raw, self._origin_ns, step, self._rank, phases),
            "marks": _marks(raw, self._origin_ns, step, self._rank, phases),
            "labels": _labels(late),
        }

    def _begin_window(self, raw: RawWindow, preexisting: list[Label], rows: EventRows) -> None:
        for block in self._existing:
            key = (block.device, block.address)
            self._add_block(key, Block(self._num_blocks, block.num_bytes, 0, len(rows.times), True, block.allocation))
            rows.add(raw.start_ns, Action.PREEXISTING, self._live[key], key)
            if block.freed:
                self._free(key, raw.start_ns, rows)
        self._existing = []
        for found in preexisting:
            self._found(found, raw.start_ns, rows, reported=False)
        for found in self._freed_unseen(raw):
            self._found(found, raw.start_ns, rows, reported=True)

    def _memory(self, event: MemoryEvent, rows: EventRows) -> None:
        key = (event.device, event.pointer)
        change = event.num_bytes
        if event.num_bytes > 0:
            if key in self._live:
                # Its death was never reported: it was made before the recording and freed where nobody looked.
                self.num_unreported_frees += 1
                self._free(key, event.time_ns, rows)
            self._birth(key, event, rows)
        elif key in self._live:
            freed = self._free(key, event.time_ns, rows)
            if event.total_allocated is None:
                change = -freed.num_bytes  # the allocator's history tells only what was asked for
        self._check_total(event, change)

    def _check_total(self, event: MemoryEvent, change: int) -> None:
        """Compare torch's own sum with ours; a difference is counted once, not again at every later event."""
        total = self._torch_bytes.get(event.device, 0) + change
        self._torch_bytes[event.device] = total
        if event.total_allocated is None:
            return
        offset = event.total_allocated - total
        first = 0 if self._allocator_is_known and event.device >= 0 else offset
        self.num_disagreements += offset != self._torch_offset.get(event.device, first)
        self._torch_offset[event.device] = offset

    def _birth(self, key: tuple[int, int], event: MemoryEvent, rows: EventRows) -> None:
        if key in self._completing:
            self._complete(key, event.time_ns, rows)  # the memory is given away again, so no stream uses it any more
        roles = int(Role.RECOMPUTED) if event.recomputed else 0
        block = self._add_block(key, Block(self._num_blocks, event.num_bytes, roles, len(rows.times), True, event.allocation))
        rows.add(event.time_ns, Action.ALLOC, block, key)
        rows.modules[-1], rows.operators[-1] = event.module, event.operator

    def _add_block(self, key: tuple[int, int], block: Block) -> Block:
        self._num_blocks += 1
        self._live[key] = block
        return block

    def _free(self, key: tuple[int, int], time_ns: int, rows: EventRows) -> Block:
        block = self._live.pop(key)
        at_once = key[0] < 0 or (self._allocator_is_known and not self._tells_completion)
        rows.add(time_ns, Action.FREE_COMPLETED if at_once else Action.FREE_REQUESTED, block, key)
        if not at_once and self._allocator_is_known:
            self._completing[key] = block
        return block

    def _complete(self, key: tuple[int, int], time_ns: int, rows: EventRows) -> None:
        block = self._completing.pop(key, None)
        if block is not None:
            rows.add(time_ns, Action.FREE_COMPLETED, block, key)

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

    def _found(self, found: Label, time_ns: int, rows: EventRows, *, reported: bool) -> None:
        """Count a block that was alive when the window began."""
        key = (found.device, found.pointer)
        known = self._live.get(key)
        if known is not None:
            if known.row >= 0:
                rows.name(known.row, found)
            return
        if found.device >= 0 and self._allocator_is_known and not reported:
            return  # memory of another owner, or inside a block: not the allocator's
        block = self._add_block(key, Block(self._num_blocks, found.num_bytes, found.roles, len(rows.times), reported))
        rows.add(time_ns, Action.PREEXISTING, block, key)
        rows.name(block.row, found)

    def _mark_workspaces(self, rows: EventRows) -> None:
        """Give the role to this window's blocks that are alive at its end and look like a workspace of cuBLAS."""
        if not self._workspace_sizes:
            return
        for (device, _), block in self._live.items():
            row = block.row
            if device < 0 or row < 0 or row in rows.names or rows.roles[row] & ~int(Role.RECOMPUTED):
                continue
            if block.requested_bytes in self._workspace_sizes and is_workspace(rows.actions[row], rows.operators[row]):
                rows.roles[row] = int(Role.WORKSPACE)

    def _note(self, note: Note, time_ns: int, rows: EventRows, late: dict[int, Label]) -> None:
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


def _operators(raw: RawWindow, origin_ns: int, step: int, rank: int, phases: list[Interval]) -> pa.Table:
    calls = raw.calls
    times = [call.time_ns for call in calls]
    columns = {
        "time_us": microseconds(times, origin_ns),
        "duration_us": np.asarray([call.duration_ns for call in calls], np.float64) / 1e3,
        "rank": np.full(len(calls), rank, np.int16),
        "step": np.full(len(calls), step, np.int32),
        "phase": phase_names(times, phases),
        "module": [call.module for call in calls],
        "operator": [call.operator for call in calls],
        "flops": [call.flops for call in calls],
        "bytes": [call.num_bytes for call in calls],
    }
    return to_columns(OPERATORS, columns, len(calls))


def _marks(raw: RawWindow, origin_ns: int, step: int, rank: int, phases: list[Interval]) -> pa.Table:
    regions = [interval for interval in raw.intervals if interval.kind == "region"]
    whole = [Interval("step", f"step {step}", raw.start_ns, raw.end_ns)] if step >= 0 else []
    marks = [*whole, *phases, *regions]
    columns = {
        "kind": [mark.kind for mark in marks],
        "name": [str(mark.name) for mark in marks],
        "start_us": microseconds([mark.start_ns for mark in marks], origin_ns),
        "end_us": microseconds([mark.end_ns for mark in marks], origin_ns),
        "step": np.full(len(marks), step, np.int32),
        "rank": np.full(len(marks), rank, np.int16),
    }
    return to_columns(MARKS, columns, len(marks))


def _labels(late: dict[int, Label]) -> pa.Table:
    columns = {
        "block": list(late),
        "roles": [found.roles for found in late.values()],
        "dtype": [found.dtype for found in late.values()],
        "shape": [found.shape for found in late.values()],
        "tensor": [found.tensor for found in late.values()],
    }
    return pa.table(columns, schema=LABELS)

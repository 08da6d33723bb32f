"""The events of one window, one by one -> Arrow tables in the recording's schemas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from profiler.recording import EVENTS, Action, Phase, Role
from profiler.tracing.notes import Label
from profiler.tracing.raw import Allocation, Interval
from profiler.units import MIB

_SMALL_POOL_BYTES = MIB
"""Blocks up to this size are of CUDA's small pool (CUDACachingAllocator, kSmallSize); there a block is never larger than was asked for."""


@dataclass(slots=True)
class Block:
    """A block that is alive, or whose memory a stream still uses."""

    number: int
    num_bytes: int
    roles: int
    row: int
    """Its row of birth in the window being converted; -1 if born in an earlier one."""
    reported: bool
    """Torch reported its birth, so it will report its death."""
    allocation: Allocation | None = None

    @property
    def requested_bytes(self) -> int:
        """What the program asked for; the block's size where only that is known."""
        return self.num_bytes if self.allocation is None else self.allocation.requested_bytes


class EventRows:
    """The events of one window, column by column."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.actions: list[Action] = []
        self.devices: list[int] = []
        self.addresses: list[int] = []
        self.blocks: list[int] = []
        self.sizes: list[int] = []
        self.allocations: list[Allocation | None] = []
        self.roles: list[int] = []
        self.modules: list[str | None] = []
        self.operators: list[str | None] = []
        self.names: dict[int, Label] = {}

    def add(self, time_ns: int, action: Action, block: Block, key: tuple[int, int]) -> None:
        """Add a row; ``key`` is the block's device and address."""
        self.times.append(time_ns)
        self.actions.append(action)
        self.devices.append(key[0])
        self.addresses.append(key[1])
        self.blocks.append(block.number)
        self.sizes.append(block.num_bytes)
        self.allocations.append(block.allocation)
        self.roles.append(block.roles if action in (Action.ALLOC, Action.PREEXISTING) else 0)
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
        """Return the rows as part of the recording's events."""
        num_rows = len(self.times)
        devices = np.asarray(self.devices, np.int16)
        columns: dict[str, Any] = {
            "time_us": microseconds(self.times, origin_ns),
            "device": devices,
            "rank": np.full(num_rows, rank, np.int16),
            "step": np.full(num_rows, step, np.int32),
            "phase": phase_names(self.times, phases),
            "action": [action.value for action in self.actions],
            "block": np.asarray(self.blocks, np.int64),
            "address": np.asarray(self.addresses, np.int64),
            "roles": np.asarray(self.roles, np.int32),
            "module": self.modules,
            "operator": self.operators,
            **self._sizes(devices),
            **self._names(),
        }
        return to_columns(EVENTS, columns, num_rows)

    def _sizes(self, devices: np.ndarray[Any, np.dtype[np.int16]]) -> dict[str, Any]:
        """Return the columns on bytes and where they are. What a GPU block was asked for is null where the history does not tell."""
        sizes = np.asarray(self.sizes, np.int64)
        known = np.asarray([found is not None for found in self.allocations], bool)
        host = devices < 0
        requested = [size if found is None else found.requested_bytes for size, found in zip(self.sizes, self.allocations, strict=True)]
        pools = pa.array(np.where(sizes <= _SMALL_POOL_BYTES, "small", "large"), mask=host)
        return {
            "requested_bytes": pa.array(np.asarray(requested, np.int64), mask=~(known | host)),
            "block_bytes": pa.array(sizes, mask=host & ~known),
            "pool": pools,
            "segment": [found and found.segment for found in self.allocations],
            "stream": [found and found.stream for found in self.allocations],
            "stack": [found and found.stack for found in self.allocations],
        }

    def _names(self) -> dict[str, Any]:
        named = [self.names.get(row) for row in range(len(self.times))]
        return {
            "dtype": [found.dtype or None if found else None for found in named],
            "shape": [found.shape if found and found.dtype else None for found in named],
            "tensor": [found.tensor if found else None for found in named],
        }


def to_columns(schema: pa.Schema, columns: dict[str, Any], num_rows: int) -> pa.Table:
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


def microseconds(times: list[int], origin_ns: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return nanoseconds since 1970 as microseconds since the recording began."""
    return (np.asarray(times, np.int64) - origin_ns) / 1e3


def phase_names(times: list[int], phases: list[Interval]) -> list[str]:
    """Return the phase at each time; between phases it is other."""
    if not phases:
        return [Phase.OTHER.value] * len(times)
    moments = np.asarray(times, np.int64)
    index = np.searchsorted([phase.start_ns for phase in phases], moments, side="right") - 1
    ends = np.asarray([phase.end_ns for phase in phases])
    inside = (index >= 0) & (moments <= ends[index])
    names = [str(phase.name) for phase in phases]
    return [names[i] if hit else Phase.OTHER.value for i, hit in zip(index.tolist(), inside.tolist(), strict=True)]

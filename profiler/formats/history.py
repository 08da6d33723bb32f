"""Events of the allocator as dictionaries, batch by batch -> columns. What is not as torch writes it is refused with its place."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from profiler.errors import FormatError
from profiler.formats.stacks import NO_STACK, Stacks

Array = np.ndarray[Any, Any]

ACTIONS = (
    "alloc",
    "free_requested",
    "free_completed",
    "segment_alloc",
    "segment_free",
    "segment_map",
    "segment_unmap",
    "oom",
    "snapshot",
    "user_defined",
)
"""What the allocator records; an action's code is its place."""
ACTION_CODES = {action: code for code, action in enumerate(ACTIONS)}
UNKNOWN_ACTION = -1
MAX_BYTES = 2**50
"""Larger than any memory there is; a size above it is damage."""
MAX_NUMBER = 2**63 - 1
NOT_GIVEN = -1
LABELS = ("user_metadata", "compile_context", "category")
_NOTHING = {"", "N/A"}
_MAX_LABEL = 1_000


@dataclass(frozen=True)
class LabelColumn:
    """A text a row, as codes into its distinct values; -1 where there is none."""

    codes: Array
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DeviceHistory:
    """What one device's allocator did, as columns in the order of time."""

    device: int
    actions: Array
    """int8, codes of `ACTIONS`."""
    addresses: Array
    """int64; `NOT_GIVEN` for an out-of-memory event."""
    sizes: Array
    """int64 bytes: requested for alloc and free, whole ranges for segments."""
    streams: Array
    """int64, the stream's pointer; 0 is the default stream."""
    times_us: Array | None
    """int64 microseconds since the epoch; None before torch 2.2."""
    stacks: Array
    """int32, places in `Snapshot.stacks`; `NO_STACK` where none was recorded."""
    device_free_bytes: dict[int, int | None] = field(default_factory=dict)
    """By place of an out-of-memory event, what the driver had left; None where it does not say."""
    labels: dict[str, LabelColumn] = field(default_factory=dict)
    """Of `LABELS`, those that hold anything."""
    pools: LabelColumn | None = None
    """The memory pool's id as text such as ``0,0``; torch 2.13 and newer."""

    def __len__(self) -> int:
        return len(self.actions)


class HistoryColumns:
    """Takes a device's events batch by batch and keeps only columns."""

    def __init__(self, stacks: Stacks) -> None:
        self._stacks = stacks
        self._for_replay = not stacks.wanted
        self._parts: list[tuple[Array, ...]] = []
        self._label_codes: dict[str, list[Array]] = {}
        self._label_names: dict[str, dict[Any, int]] = {}
        self._device_free: dict[int, int | None] = {}
        self._num_events = 0
        self.num_unknown_actions = 0
        self.keys: set[str] = set()
        """The fields that the first event of each batch has; they tell torch's version."""

    def take(self, batch: list[Any]) -> None:
        """Append events.

        Raises:
            FormatError: an event is not as torch writes it.
        """
        if not batch:
            return
        try:
            names = column(batch, "action")
        except (TypeError, AttributeError):
            raise FormatError(f"event {self._num_events:,} or one behind it is not a dictionary. Record the snapshot again.") from None
        self.keys |= {key for key in batch[0] if type(key) is str}
        actions = self._actions(names)
        numbers = [self._numbers(column(batch, name), name, limit) for name, limit in _NUMBERS]
        if self._for_replay:
            times = stacks = np.full(len(batch), NOT_GIVEN)
        else:
            times = self._numbers(column(batch, "time_us"), "time_us", MAX_NUMBER)
            stacks = self._stacks.numbers(column(batch, "frames"))
        for name in () if self._for_replay else (*LABELS, "pool_id"):
            if name in self._label_codes or name in batch[0] or name in batch[-1]:
                self._labels(name, column(batch, name))
        for row in np.flatnonzero(actions == ACTION_CODES["oom"]).tolist():
            free = batch[row].get("device_free")
            self._device_free[self._num_events + row] = free if type(free) is int and 0 <= free <= MAX_BYTES else None
        self._parts.append((actions, *numbers, times, stacks))
        self._num_events += len(batch)

    def finish(self, device: int) -> DeviceHistory:
        """Return the columns of all batches."""
        columns = [np.concatenate(parts) for parts in zip(*self._parts, strict=True)] or [np.empty(0, np.int64)] * 6
        actions, addresses, sizes, streams, times, stacks = columns
        unknown = np.flatnonzero(actions == UNKNOWN_ACTION)
        self.num_unknown_actions = len(unknown)
        labels = {name: LabelColumn(np.concatenate(codes), self._names(name)) for name, codes in self._label_codes.items()}
        if len(unknown):
            actions, addresses, sizes, streams, times, stacks = (np.delete(values, unknown) for values in columns)
            labels = {name: LabelColumn(np.delete(labels[name].codes, unknown), labels[name].names) for name in labels}
        return DeviceHistory(
            device=device,
            actions=actions.astype(np.int8, copy=False),
            addresses=addresses,
            sizes=np.maximum(sizes, 0),
            streams=np.maximum(streams, 0),
            times_us=times if len(times) and (times != NOT_GIVEN).all() else None,
            stacks=stacks.astype(np.int32, copy=False),
            device_free_bytes={row - int(np.searchsorted(unknown, row)): free for row, free in self._device_free.items()},
            pools=labels.pop("pool_id", None),
            labels=labels,
        )

    def _actions(self, column: list[Any]) -> Array:
        try:
            return np.frombuffer(bytes(map(ACTION_CODES.__getitem__, column)), np.int8)
        except (KeyError, TypeError):
            if set(map(type, column)) != {str}:
                raise FormatError(f"{self._where(column, str)} has no action. Record the snapshot again.") from None
            return np.array([ACTION_CODES.get(action, UNKNOWN_ACTION) for action in column], np.int8)

    def _numbers(self, column: list[Any], name: str, limit: int) -> Array:
        try:
            values = packed(column)
        except TypeError:
            raise self._no_whole_number(column, name) from None
        except OverflowError:
            raise FormatError(f"an event from {self._num_events:,} on has a {name} over 64 bits. Record the snapshot again.") from None
        least = values.min()
        if least <= 1 and bool in set(map(type, column)):  # packed as 1 and 0
            raise self._no_whole_number(column, name)
        if least < NOT_GIVEN or values.max() > limit:
            wrong = self._num_events + int(np.argmax((values < NOT_GIVEN) | (values > limit)))
            raise FormatError(f"event {wrong:,} has an impossible {name}; 0 to {limit:,} is allowed. Record the snapshot again.")
        return values

    def _no_whole_number(self, column: list[Any], name: str) -> FormatError:
        return FormatError(f"{self._where(column, int)} has a {name} that is no whole number. Record the snapshot again.")

    def _labels(self, name: str, column: list[Any]) -> None:
        """Keep a column of texts; one that says nothing so far takes no memory."""
        if name not in self._label_codes and _is_nothing(column[0]) and column.count(column[0]) == len(column):
            return
        kinds = set(map(type, column))
        if name == "pool_id" and kinds <= {tuple, type(None)}:
            column = [None if value is None else _pool(value) for value in column]
        elif kinds - {str, type(None)}:
            column = [value if type(value) is str else None for value in column]
        if name not in self._label_codes:
            if all(value is None or value in _NOTHING for value in set(column)):
                return
            self._label_codes[name] = [np.full(self._num_events, NO_STACK, np.int32)] if self._num_events else []
            self._label_names[name] = dict.fromkeys((None, *_NOTHING), NO_STACK)
        known = self._label_names[name]
        for value in set(column) - known.keys():
            known[value] = len(known) - len(_NOTHING) - 1
        self._label_codes[name].append(np.array([known[value] for value in column], np.int32))

    def _names(self, name: str) -> tuple[str, ...]:
        return tuple(str(value)[:_MAX_LABEL] for value, code in self._label_names[name].items() if code >= 0)

    def _where(self, column: list[Any], kind: type) -> str:
        wrong = next(row for row, value in enumerate(column) if type(value) not in (kind, type(None)) or (value is None and kind is str))
        return f"event {self._num_events + wrong:,}"


_NUMBERS = (("addr", MAX_NUMBER), ("size", MAX_BYTES), ("stream", MAX_NUMBER))


def packed(column: list[Any]) -> Array:
    """Return whole numbers side by side, `NOT_GIVEN` for None.

    Raises:
        TypeError: there is something else.
        OverflowError: one is over 64 bits.
    """
    try:
        return np.frombuffer(struct.pack(f"{len(column)}q", *column), np.int64)
    except struct.error:  # says no more; an array tells a wrong kind from a number that is too large
        return np.frombuffer(array("q", [NOT_GIVEN if value is None else value for value in column]), np.int64)


def _is_nothing(value: Any) -> bool:
    return value is None or (type(value) is str and value in _NOTHING)


def column(rows: list[Any], name: str) -> list[Any]:
    """Return a field of each row; None where a row has none."""
    try:
        return [row[name] for row in rows]
    except KeyError:
        return [row.get(name) for row in rows]


def _pool(value: Any) -> str | None:
    return f"{value[0]},{value[1]}" if len(value) == 2 and all(type(part) is int and abs(part) <= MAX_NUMBER for part in value) else None

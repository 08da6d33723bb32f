"""The segments of a snapshot as dictionaries -> checked segments and blocks, field by field: there are thousands of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise, repeat
from typing import Any, NamedTuple

import numpy as np

from profiler.allocator.state import BlockStatus
from profiler.errors import FormatError
from profiler.formats.history import MAX_BYTES, MAX_NUMBER, NOT_GIVEN, Array, column, packed
from profiler.formats.stacks import Stacks
from profiler.units import MIB

_STATUS_OF_STATE = {status.value: status for status in BlockStatus} | {"active_awaiting_free": BlockStatus.PENDING}
_MAX_DEVICE = 1_024
_NO_STATE = f"is in no known state: {', '.join(_STATUS_OF_STATE)}"


class FinalBlock(NamedTuple):
    """A block when the snapshot was taken."""

    address: int | None
    """None before torch 2.1: add up the sizes."""
    bytes: int
    """What the allocator gave: rounded, and with the slack of a block that was not split."""
    requested_bytes: int
    status: BlockStatus
    stack: int
    """Where it was allocated: a place in `Snapshot.stacks`, or `NO_STACK`."""


class Segment(NamedTuple):
    """A range of device memory that the allocator holds."""

    device: int
    address: int | None
    """None only where no block has one either."""
    bytes: int
    stream: int
    pool: str
    """``small`` or ``large``."""
    pool_id: tuple[int, int]
    """Of a private pool; (0, 0) is the default one."""
    expandable: bool
    blocks: tuple[FinalBlock, ...]


class _Rows:
    """Dictionaries of one kind.

    Args:
        rows: what the file has in their place.
        name: returns what messages call the row at a place.
    """

    def __init__(self, rows: list[Any], name: Callable[[int], str]) -> None:
        self._rows, self._name = rows, name

    def values(self, key: str, kind: type, why: str) -> list[Any]:
        """Return a field of each row, or raise where one has none of that kind, or is no dictionary."""
        values = [row.get(key) if type(row) is dict else None for row in self._rows]
        if set(map(type, values)) - {kind}:
            self.refuse((type(value) is not kind for value in values), why)
        return values

    def column(self, key: str) -> list[Any]:
        """Return a field of each row, None where there is none; the rows are dictionaries."""
        return column(self._rows, key)

    def wholes(self, key: str, limit: int, defaults: Iterable[int] = ()) -> list[int]:
        """Return whole numbers from 0 to ``limit``; where there is none, the default of the row's place."""
        values = self.column(key)
        if defaults and type(None) in set(map(type, values)):
            values = [default if value is None else value for value, default in zip(values, defaults, strict=False)]
        self._check(values, key, limit)
        return values

    def addresses(self) -> list[int | None]:
        """Return the addresses; None where there is none."""
        values = self.column("address")
        self._check([0 if value is None else value for value in values], "address", MAX_NUMBER)
        return values

    def _check(self, values: list[Any], key: str, limit: int) -> None:
        if set(map(type, values)) - {int} or not 0 <= min(values, default=0) <= max(values, default=0) <= limit:
            self.refuse((type(value) is not int or not 0 <= value <= limit for value in values), f"has no {key} from 0 to {limit:,}")

    def refuse(self, wrong: Iterable[bool], why: str) -> None:
        """Raise if a row is wrong, naming the first one."""
        for place, is_wrong in enumerate(wrong):
            if is_wrong:
                raise FormatError(f"{self._name(place)} {why}. Record the snapshot again.")


def read_segments(rows: list[Any], stacks: Stacks) -> list[Segment]:
    """Return the segments.

    Raises:
        FormatError: one is not as torch writes it.
    """
    table = _Rows(rows, _segment_name)
    lists = table.values("blocks", list, "has no list of blocks")
    sizes = table.wholes("total_size", MAX_BYTES)
    addresses = table.addresses()
    columns = (
        table.wholes("device", _MAX_DEVICE, repeat(0)),
        addresses,
        sizes,
        table.wholes("stream", MAX_NUMBER, repeat(0)),
        [_pool(kind, size) for kind, size in zip(table.column("segment_type"), sizes, strict=True)],
        [_pool_id(value) for value in table.column("segment_pool_id")],
        [value is True for value in table.column("is_expandable")],
        _blocks(lists, addresses, sizes, stacks),
    )
    return list(map(tuple.__new__, repeat(Segment), zip(*columns, strict=True)))


def _blocks(lists: list[list[Any]], addresses: list[int | None], sizes: list[int], stacks: Stacks) -> list[tuple[FinalBlock, ...]]:
    """Return the blocks of each segment."""
    starts = [0, *accumulate(map(len, lists))]

    def name(place: int) -> str:
        segment = bisect_right(starts, place) - 1
        return f"{_segment_name(segment)}, block {place - starts[segment]:,},"

    rows = [row for blocks in lists for row in blocks]
    table = _Rows(rows, name)
    states = table.values("state", str, _NO_STATE)
    if not _STATUS_OF_STATE.keys() >= set(states):
        table.refuse((state not in _STATUS_OF_STATE for state in states), _NO_STATE)
    block_bytes = table.wholes("size", MAX_BYTES)
    requests = [_last_request(row) if "history" in row else row for row in rows]
    requested = [row.get("real_size", size) for row, size in zip(requests, block_bytes, strict=True)]
    columns = (
        table.addresses(),
        block_bytes,
        table.wholes("requested_size", MAX_BYTES, requested),
        [_STATUS_OF_STATE[state] for state in states],
        stacks.numbers(column(requests, "frames")).tolist(),
    )
    places = list(pairwise(starts))
    ends = [0, *accumulate(block_bytes)]
    overfull = {segment for segment, (first, end) in enumerate(places) if ends[end] - ends[first] > sizes[segment]}
    wrong = overfull | _with_blocks_outside(np.repeat(np.arange(len(lists)), np.diff(starts)), columns[0], block_bytes, addresses, sizes)
    if wrong:
        segment = min(wrong)
        raise FormatError(
            f"{_segment_name(segment)}: a block lies outside of its segment of {sizes[segment]:,} bytes. Record the snapshot again."
        )
    blocks: list[FinalBlock] = list(map(tuple.__new__, repeat(FinalBlock), zip(*columns, strict=True)))
    return [tuple(blocks[first:end]) for first, end in places]


def _with_blocks_outside(
    owner: Array, starts: list[int | None], block_bytes: list[int], addresses: list[int | None], sizes: list[int]
) -> set[int]:
    """Return the segments with a block that does not lie inside of them; ``owner`` is each block's segment."""
    start, base = packed(starts), packed(addresses)[owner]
    room = packed(sizes)[owner] - packed(block_bytes)
    outside = (start != NOT_GIVEN) & (base != NOT_GIVEN) & ((start < base) | (start - base > room))
    return set(owner[outside].tolist())


def _last_request(row: dict[Any, Any]) -> dict[Any, Any]:
    """Return what says how many bytes a block was asked for, and where: in torch 1.13 and 2.0 the first entry of its history."""
    history = row["history"]
    return history[0] if type(history) is list and history and type(history[0]) is dict else row


def _segment_name(place: int) -> str:
    return f"segment {place:,}"


def _pool(value: Any, num_bytes: int) -> str:
    if value in ("small", "large"):
        return str(value)
    return "small" if num_bytes <= 2 * MIB else "large"


def _pool_id(value: Any) -> tuple[int, int]:
    if value == (0, 0):
        return (0, 0)
    if type(value) in (tuple, list) and len(value) == 2 and all(type(part) is int and abs(part) <= MAX_NUMBER for part in value):
        return (value[0], value[1])
    return (0, 0)

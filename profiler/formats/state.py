"""The segments of a snapshot as dictionaries -> checked segments and blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from profiler.errors import FormatError
from profiler.formats.history import MAX_BYTES, MAX_NUMBER
from profiler.formats.stacks import NO_STACK, Stacks
from profiler.units import MIB

ALLOCATED, PENDING, INACTIVE = "active_allocated", "active_pending_free", "inactive"
_STATES = {ALLOCATED: ALLOCATED, PENDING: PENDING, "active_awaiting_free": PENDING, INACTIVE: INACTIVE}
_MAX_DEVICE = 1_024


class FinalBlock(NamedTuple):
    """A block when the snapshot was taken."""

    address: int | None
    """None before torch 2.1: add up the sizes."""
    bytes: int
    """What the allocator gave: rounded, and with the slack of a block that was not split."""
    requested_bytes: int
    state: str
    """``active_allocated``, ``active_pending_free`` or ``inactive``."""
    stack: int
    """Where it was allocated: a place in `Snapshot.stacks`, or `NO_STACK`."""


@dataclass(frozen=True, slots=True)
class Segment:
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


def read_segments(rows: list[Any], stacks: Stacks) -> list[Segment]:
    """Return the segments.

    Raises:
        FormatError: one is not as torch writes it.
    """
    segments: list[Segment] = []
    try:
        for row in rows:
            segments.append(_segment(row, stacks))
    except FormatError as error:
        raise FormatError(f"segment {len(segments):,}{error}. Record the snapshot again.") from error
    return segments


def _segment(row: Any, stacks: Stacks) -> Segment:
    if type(row) is not dict or type(row.get("blocks")) is not list:
        raise FormatError(" has no list of blocks")
    num_bytes = _whole(row, "total_size", MAX_BYTES)
    address = _whole(row, "address", MAX_NUMBER) if row.get("address") is not None else None
    pool = row.get("segment_type")
    return Segment(
        device=_whole(row, "device", _MAX_DEVICE, 0),
        address=address,
        bytes=num_bytes,
        stream=_whole(row, "stream", MAX_NUMBER, 0),
        pool=pool if pool in ("small", "large") else ("small" if num_bytes <= 2 * MIB else "large"),
        pool_id=_pool_id(row.get("segment_pool_id")),
        expandable=row.get("is_expandable") is True,
        blocks=_blocks(row["blocks"], address, num_bytes, stacks),
    )


def _blocks(rows: list[Any], address: int | None, num_bytes: int, stacks: Stacks) -> tuple[FinalBlock, ...]:
    blocks: list[FinalBlock] = []
    total = 0
    try:
        for row in rows:
            block = _block(row, stacks)
            total += block.bytes
            outside = (
                address is not None and block.address is not None and not address <= block.address <= address + num_bytes - block.bytes
            )
            if outside or total > num_bytes:
                raise FormatError(f" lies outside of its segment of {num_bytes:,} bytes")
            blocks.append(block)
    except FormatError as error:
        raise FormatError(f", block {len(blocks):,},{error}") from error
    return tuple(blocks)


def _block(row: Any, stacks: Stacks) -> FinalBlock:
    if type(row) is not dict or not isinstance(state := row.get("state"), str) or state not in _STATES:
        raise FormatError(f" is in no known state: {', '.join(_STATES)}")
    num_bytes = _whole(row, "size", MAX_BYTES)
    frames = row.get("frames")
    if "history" in row and type(history := row["history"]) is list and history and type(history[0]) is dict:
        # torch 1.13 and 2.0: the last allocation comes first.
        frames = history[0].get("frames")
        row = {"requested_size": history[0].get("real_size", num_bytes), **row}
    address = None if row.get("address") is None else _whole(row, "address", MAX_NUMBER)
    requested_bytes = _whole(row, "requested_size", MAX_BYTES, num_bytes)
    return FinalBlock(address, num_bytes, requested_bytes, _STATES[state], stacks.number(frames) if frames else NO_STACK)


def _pool_id(value: Any) -> tuple[int, int]:
    if value == (0, 0):
        return (0, 0)
    if type(value) in (tuple, list) and len(value) == 2 and all(type(part) is int and abs(part) <= MAX_NUMBER for part in value):
        return (value[0], value[1])
    return (0, 0)


def _whole(row: dict[Any, Any], name: str, limit: int, default: int | None = None) -> int:
    """Return a whole number of a row, 0 to ``limit``."""
    value = row.get(name, default)
    if type(value) is not int or not 0 <= value <= limit:
        raise FormatError(f" has no {name} from 0 to {limit:,}")
    return value

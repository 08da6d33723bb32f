"""A history and the segments at its end -> the state before its first event, which no snapshot stores.

Whether a block or segment was there is told by the first event at its address: what is freed first was there, what is allocated first was
not, what has no event is there at the end too. The size of a block that was there and is gone is not recorded; it follows from the rule
that a large block keeps at most 1 MiB more than it needs, so that a shorter gap behind it is its slack.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.sizes import SMALL_BYTES, SMALL_SEGMENT_BYTES, round_size
from profiler.allocator.state import BlockState, BlockStatus, SegmentState, State
from profiler.allocator.trace import Column, Kind, Trace
from profiler.errors import FormatError

_UNKNOWN = 0
"""In the place of the bytes of a block that was freed in the history."""
_STATUS_BEFORE = {Kind.FREE_REQUESTED: BlockStatus.ALLOCATED, Kind.FREE_COMPLETED: BlockStatus.PENDING}
"""What a block was, by the first row about it."""


@dataclass(slots=True)
class _Range:
    """A mapped range while it is being put back."""

    address: int
    end: int
    stream: int
    is_small: bool | None
    expandable: bool


def undo(trace: Trace, final: State, config: AllocatorConfig | None = None) -> State:
    """Return the state before the first row of ``trace``, whose last row led to ``final``.

    Args:
        trace: a device's history, with recorded addresses as keys.
        final: the snapshot's segments of that device.
        config: the settings that were in force.

    Raises:
        FormatError: history and segments contradict each other.
    """
    about_blocks = np.flatnonzero(trace.kind <= Kind.FREE_COMPLETED)
    keys, places = np.unique(trace.key[about_blocks], return_index=True)
    untouched, touched = _by_touch(np.concatenate([keys, trace.key[trace.kind > Kind.FREE_COMPLETED]]), final)
    ranges: list[_Range | SegmentState] = sorted([*untouched, *_ranges_at_start(trace, touched)], key=_address)
    _refuse_overlaps(ranges)
    blocks = _Blocks(trace, keys, about_blocks[places], touched, config or AllocatorConfig())
    states = [found if isinstance(found, SegmentState) else blocks.state_of(found) for found in ranges]
    return with_range_addresses(states, trace)


def _by_touch(keys: Column, final: State) -> tuple[list[SegmentState], list[SegmentState]]:
    """Return the segments that no row is about, which were there at the start just as they are, and the others."""
    keys = np.sort(keys)
    address = np.array([segment.address for segment in final], np.int64)
    first = np.searchsorted(keys, address)
    behind = np.searchsorted(keys, address + np.array([segment.bytes for segment in final], np.int64))
    same: tuple[list[SegmentState], list[SegmentState]] = ([], [])
    for segment, is_touched in zip(final, (first != behind).tolist(), strict=True):
        same[is_touched or segment.is_expandable].append(segment)
    return same


class _Blocks:
    """The active blocks at the start.

    Args:
        trace: the history.
        keys: of the blocks that the history is about, in order.
        first: for each the first row about it.
        final: the segments at the end that the history is about.
        config: the settings that were in force.
    """

    def __init__(self, trace: Trace, keys: Column, first: Column, final: list[SegmentState], config: AllocatorConfig) -> None:
        self._config = config
        self._keys: list[int] = keys.tolist()
        self._first: list[int] = first.tolist()
        seen = set(self._keys)
        blocks = [
            block for segment in final for block in segment.blocks if block.status is not BlockStatus.INACTIVE and block.address not in seen
        ]
        there = trace.kind[first] != Kind.ALLOC
        columns = (keys[there], trace.bytes[first[there]], trace.kind[first[there]])
        for address, requested, kind in zip(*(column.tolist() for column in columns), strict=True):
            blocks.append(BlockState(address, _UNKNOWN, requested, _STATUS_BEFORE[kind]))
        self._blocks = sorted(blocks)
        self._addresses = [block.address for block in self._blocks]

    def state_of(self, found: _Range) -> SegmentState:
        """Return a range that was mapped at the start with its blocks."""
        config, num_bytes = self._config, found.end - found.address
        inside = self._blocks[bisect_left(self._addresses, found.address) : bisect_left(self._addresses, found.end)]
        is_small = found.is_small
        if is_small is None:
            is_small = is_small_range(num_bytes, inside, config, is_expandable=found.expandable)
        return SegmentState.around(
            self._with_sizes(inside, found.end, exact=is_small or found.expandable or config.expandable_segments),
            address=found.address,
            num_bytes=num_bytes,
            stream=found.stream,
            is_small=is_small,
            is_expandable=found.expandable,
        )

    def _with_sizes(self, blocks: list[BlockState], end: int, *, exact: bool) -> list[BlockState]:
        """Return the active blocks of a segment that ends at ``end``, all with their sizes; ``exact``: none has slack here."""
        sized = []
        for block in reversed(blocks):
            sized.append(self._resolve(block, end, exact=exact) if block.bytes == _UNKNOWN else block)
            end = block.address
        return sized[::-1]

    def _resolve(self, block: BlockState, end: int, *, exact: bool) -> BlockState:
        """Return a block that was freed in the history with its size; ``end`` is the first address that cannot be its own."""
        size = round_size(block.requested_bytes, self._config)
        gap = end - block.address - size
        if not exact and gap > 0:
            limit = self._largest_slack(size)
            size += gap if gap <= limit else self._slack_before_next(block.address, size, limit)
        return block._replace(bytes=size)

    def _largest_slack(self, size: int) -> int:
        max_split = self._config.max_split_size_bytes
        return SMALL_BYTES if max_split is None or size < max_split else self._config.max_non_split_rounding_bytes

    def _slack_before_next(self, address: int, size: int, limit: int) -> int:
        """Return the distance to the next block that was there while this one was; 0 where none was close enough to tell."""
        place = bisect_left(self._keys, address)
        freed = self._first[place]
        low, high = bisect_left(self._keys, address + size), bisect_right(self._keys, address + size + limit)
        for neighbour in range(low, high):
            if self._first[neighbour] < freed:
                return self._keys[neighbour] - address - size
        return 0


def _ranges_at_start(trace: Trace, final: list[SegmentState]) -> list[_Range]:
    """Return the mapped ranges at the start: the final ones, with what the history did to them undone."""
    ranges = [_Range(found.address, found.end, found.stream, found.is_small, found.is_expandable) for found in final]
    whole = {found.address: found for found in ranges if not found.expandable}
    pages = _Pages([found for found in ranges if found.expandable])
    rows = np.flatnonzero((trace.kind >= Kind.SEGMENT_ALLOC) & (trace.kind <= Kind.SEGMENT_UNMAP))[::-1]
    columns = (trace.kind[rows], trace.key[rows], trace.bytes[rows], trace.stream[rows])
    for kind, address, num_bytes, stream in zip(*(column.tolist() for column in columns), strict=True):
        if kind == Kind.SEGMENT_ALLOC:
            whole.pop(address, None)
        elif kind == Kind.SEGMENT_FREE:
            whole[address] = _Range(address, address + num_bytes, stream, None, expandable=False)
        elif kind == Kind.SEGMENT_MAP:
            pages.remove(address, address + num_bytes)
        else:
            pages.add(_Range(address, address + num_bytes, stream, None, expandable=True))
    return [*whole.values(), *_joined(pages.ranges)]


def _refuse_overlaps(ranges: Sequence[_Range | SegmentState]) -> None:
    for lower, upper in pairwise(ranges):
        if upper.address < lower.end:
            raise FormatError(
                f"The segments at {lower.address:#x} and {upper.address:#x} overlap, or the history contradicts them. "
                "The snapshot is damaged; write it again."
            )


class _Pages:
    """Mapped rows of pages, by address, none of which overlap."""

    def __init__(self, ranges: list[_Range]) -> None:
        self.ranges = sorted(ranges, key=_address)

    def add(self, found: _Range) -> None:
        """Put a range in."""
        insort(self.ranges, found, key=_address)

    def remove(self, low: int, high: int) -> None:
        """Cut ``[low, high)`` out of what is there; it may be a part of a range, or span several."""
        first = max(bisect_right(self.ranges, low, key=_address) - 1, 0)
        last = bisect_left(self.ranges, high, key=_address)
        left = []
        for found in self.ranges[first:last]:
            for start, end in ((found.address, min(found.end, low)), (max(found.address, high), found.end)):
                if start < end:
                    left.append(_Range(start, end, found.stream, found.is_small, found.expandable))
        self.ranges[first:last] = left


def _address(found: _Range | SegmentState) -> int:
    return found.address


def _joined(ranges: list[_Range]) -> list[_Range]:
    """Return the ranges with touching pages of one expandable segment made one; an unknown pool is that of the neighbour."""
    joined: list[_Range] = []
    for found in ranges:
        last = joined[-1] if joined else None
        touches = last is not None and last.expandable and found.expandable and (last.end, last.stream) == (found.address, found.stream)
        if last is not None and touches and (last.is_small is None or found.is_small is None or last.is_small == found.is_small):
            last.end = found.end
            last.is_small = found.is_small if last.is_small is None else last.is_small
        else:
            joined.append(found)
    return joined


def is_small_range(num_bytes: int, inside: Sequence[BlockState], config: AllocatorConfig, *, is_expandable: bool) -> bool:
    """Return the pool of a range that nothing names: told by its active blocks, or by its size where it has none."""
    if inside:
        return all(round_size(block.requested_bytes, config) <= SMALL_BYTES for block in inside)
    return num_bytes % config.large_segment_size_bytes != 0 if is_expandable else num_bytes == SMALL_SEGMENT_BYTES


def with_range_addresses(states: Sequence[SegmentState], trace: Trace) -> State:
    """Say where each expandable segment begins: its lowest page, or pages right below it that are mapped later."""
    maps = trace.kind == Kind.SEGMENT_MAP
    starts_by_end: dict[Any, int] = dict(zip((trace.key + trace.bytes)[maps].tolist(), trace.key[maps].tolist(), strict=True))
    result: list[SegmentState] = []
    for state in states:
        last = result[-1] if result else None
        if not state.is_expandable:
            result.append(state)
            continue
        if last is not None and last.is_expandable and (last.stream, last.is_small) == (state.stream, state.is_small):
            base = last.address if last.range_address is None else last.range_address
        else:
            base = state.address
            while base in starts_by_end:
                base = starts_by_end.pop(base)
        result.append(
            SegmentState(state.address, state.bytes, state.stream, state.is_small, state.blocks, is_expandable=True, range_address=base)
        )
    return tuple(result)

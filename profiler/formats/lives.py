"""A device's history and the state around it -> the rows of `Recording.events` about it: which block each event is about.

A history names blocks by address, and addresses are used again. What is freed before it was ever allocated, and what is there at the end
without an event, is older than the recording: a row PREEXISTING each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from profiler.allocator.private_pools import without_pool
from profiler.allocator.state import BlockStatus, State
from profiler.formats.history import ACTION_CODES, DeviceHistory
from profiler.formats.stacks import NO_STACK
from profiler.recording import Action

Array = np.ndarray[Any, Any]

PREEXISTING, ALLOC, FREE_REQUESTED, FREE_COMPLETED = range(4)
"""Codes of rows; `ACTIONS` names them."""
ACTIONS = (Action.PREEXISTING, Action.ALLOC, Action.FREE_REQUESTED, Action.FREE_COMPLETED)
_ALLOC = ACTION_CODES["alloc"]
_COMPLETED = ACTION_CODES["free_completed"]
UNKNOWN_BYTES = -1


@dataclass(frozen=True, eq=False)
class Lives:
    """The rows of one device, columns of one length: what is older than the recording first, then the history in its order."""

    device: int
    source: Array
    """The event of the history that a row came from; -1 for what is older."""
    action: Array
    """Codes of `ACTIONS`."""
    block: Array
    """A block's number, 0 and up."""
    address: Array
    requested_bytes: Array
    block_bytes: Array
    """`UNKNOWN_BYTES` where the allocator's decision could not be reproduced."""
    stream: Array
    stack: Array
    birth: Array
    """By block, its row of birth."""
    death: Array
    """By block, the row at which its free was requested; the number of rows where it was never freed."""
    num_dropped: int
    """Frees of blocks that were freed already."""
    num_unseen_frees: int
    """Blocks whose address was given out again although no free was recorded; a free is put there."""

    def __len__(self) -> int:
        return len(self.action)


def trace_lives(history: DeviceHistory, start: State | None, final_stacks: dict[int, int], block_bytes: Array | None) -> Lives:
    """Return the rows of one device.

    Args:
        history: what its allocator did; may be empty.
        start: the state before the first event; None where it could not be told.
        final_stacks: by address of the blocks at the end, where they were allocated.
        block_bytes: what each allocation got, in their order; None where that could not be told.
    """
    events = _Events.of(history)
    older = _Older.of(history, events, start, final_stacks)
    num_older = len(older.block)
    requested = np.concatenate([older.requested, history.sizes[events.source]])
    block = np.concatenate([older.block, events.block])
    action = np.concatenate([np.full(num_older, PREEXISTING), events.kind + 1])
    num_blocks = older.num_blocks
    birth, death = _ends(action, block, num_blocks)
    sizes = np.full(num_blocks, UNKNOWN_BYTES, np.int64)
    sizes[older.block] = older.block_bytes
    if block_bytes is not None:
        # The allocations of the history, in their order, are the rows of birth behind those of what is older.
        sizes[block[action == ALLOC]] = block_bytes
    requested_of = np.zeros(num_blocks, np.int64)
    requested_of[block[birth]] = requested[birth]
    return Lives(
        device=history.device,
        source=np.concatenate([np.full(num_older, -1), events.source]),
        action=action.astype(np.int8),
        block=block,
        address=np.concatenate([older.address, history.addresses[events.source]]),
        requested_bytes=requested_of[block],
        block_bytes=sizes[block],
        stream=np.concatenate([older.stream, history.streams[events.source]]),
        stack=np.concatenate([older.stack, history.stacks[events.source]]).astype(np.int32),
        birth=birth,
        death=death,
        num_dropped=events.num_dropped,
        num_unseen_frees=events.num_unseen_frees,
    )


@dataclass(frozen=True, eq=False)
class _Events:
    """The events about blocks, in order, and the block that each is about."""

    source: Array
    kind: Array
    """0 alloc, 1 free_requested, 2 free_completed."""
    block: Array
    first_of_block: Array
    """For each block the place of its first event."""
    num_dropped: int
    num_unseen_frees: int

    @classmethod
    def of(cls, history: DeviceHistory) -> _Events:
        source = np.flatnonzero((history.actions >= 0) & (history.actions <= _COMPLETED))
        kind = history.actions[source].astype(np.int64)
        address = history.addresses[source]
        by_address = np.lexsort((np.arange(len(source)), address))
        kind_there, address_there = kind[by_address], address[by_address]
        begins = np.ones(len(source), bool)
        begins[1:] = address_there[1:] != address_there[:-1]
        previous = np.concatenate([[-1], kind_there[:-1]])
        block = np.cumsum(begins | (kind_there == _ALLOC)) - 1
        progress = block * (_COMPLETED + 1) + kind_there
        doubled = np.zeros(len(source), bool)
        doubled[1:] = progress[1:] <= np.maximum.accumulate(progress)[:-1]
        unseen = np.flatnonzero(~begins & (kind_there == _ALLOC) & (previous == _ALLOC))
        # A free that was not recorded is put right before the allocation that shows it.
        place = np.concatenate([by_address, by_address[unseen] - 0.5])
        kind_there = np.concatenate([kind_there, np.full(len(unseen), _COMPLETED)])
        block = np.concatenate([block, block[unseen] - 1])
        source_there = np.concatenate([source[by_address], source[by_address[unseen]]])
        kept = np.concatenate([~doubled, np.ones(len(unseen), bool)])
        order = np.argsort(place[kept], kind="stable")
        block = block[kept][order]
        _, first = np.unique(block, return_index=True)
        return cls(source_there[kept][order], kind_there[kept][order], block, first, int(doubled.sum()), len(unseen))


@dataclass(frozen=True, eq=False)
class _Older:
    """The blocks that are older than the history."""

    block: Array
    address: Array
    requested: Array
    block_bytes: Array
    stream: Array
    stack: Array
    num_blocks: int
    """Of the whole device."""

    @classmethod
    def of(cls, history: DeviceHistory, events: _Events, start: State | None, final_stacks: dict[int, int]) -> _Older:
        number_of: dict[int, int] = {}
        rows: list[tuple[int, int, int, int, int]] = []
        first = events.first_of_block
        for place in first[events.kind[first] != _ALLOC].tolist():
            source = int(events.source[place])
            address = int(history.addresses[source])
            number_of[address] = int(events.block[place])
            if start is None:
                rows.append((number_of[address], address, int(history.sizes[source]), UNKNOWN_BYTES, int(history.streams[source])))
        num_blocks = len(first)
        for segment in start or ():
            for found in segment.blocks:
                if found.status is BlockStatus.INACTIVE:
                    continue
                number = number_of.pop(found.address, num_blocks)
                num_blocks += number == num_blocks
                asked = found.requested_bytes or found.bytes
                rows.append((number, found.address, asked, found.bytes, without_pool(segment.stream)))
        columns = np.array(sorted(rows, key=_by_address), np.int64).reshape(-1, 5)
        # A stack at the end belongs to a block that is there at the end: one without any event.
        places = columns[:, :2].tolist()
        stack = np.array([final_stacks.get(where, NO_STACK) if number >= len(first) else NO_STACK for number, where in places], np.int32)
        numbers, addresses, requested, block_bytes, streams = columns.T
        return cls(numbers, addresses, requested, block_bytes, streams, stack, num_blocks)


def _by_address(row: tuple[int, int, int, int, int]) -> int:
    return row[1]


def _ends(action: Array, block: Array, num_blocks: int) -> tuple[Array, Array]:
    """Return each block's row of birth and of death."""
    num_rows = len(action)
    birth = np.zeros(num_blocks, np.int64)
    death = np.full(num_blocks, num_rows, np.int64)
    born = np.flatnonzero(action <= ALLOC)
    birth[block[born]] = born
    for kind in (FREE_COMPLETED, FREE_REQUESTED):
        rows = np.flatnonzero(action == kind)
        death[block[rows]] = rows
    return birth, death

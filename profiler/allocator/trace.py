"""What a program asked of the allocator, as columns: from a snapshot's history or from a Recording, to what is replayed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from profiler.allocator.private_pools import PoolRange, recorded_pools, streams_by_pool
from profiler.allocator.state import BlockStatus, State
from profiler.recording import Action, Recording

Column = np.ndarray[Any, np.dtype[Any]]


class Kind(IntEnum):
    """What a row says; the names are those of the snapshot's actions."""

    ALLOC = 0
    FREE_REQUESTED = 1
    FREE_COMPLETED = 2
    SEGMENT_ALLOC = 3
    SEGMENT_FREE = 4
    SEGMENT_MAP = 5
    SEGMENT_UNMAP = 6
    OOM = 7
    OTHER = 8
    """Changes nothing: ``snapshot``, ``user_defined``, and what is not known."""


class Op(IntEnum):
    """A step of the program, as it is replayed."""

    ALLOC = 0
    FREE = 1
    FREE_REQUESTED = 2
    FREE_COMPLETED = 3
    EMPTY_CACHE = 4
    """Segments were given back and nothing was asked of the driver right after: the program called ``empty_cache``."""
    RETRY = 5
    """Segments were given back and the driver was asked right after: the allocator made room, or the program called ``empty_cache``."""
    OOM = 6


KIND_OF_ACTION = {kind.name.lower(): kind for kind in Kind if kind is not Kind.OTHER}
RELEASES = (Kind.SEGMENT_FREE, Kind.SEGMENT_UNMAP)
GROWTHS = (Kind.SEGMENT_ALLOC, Kind.SEGMENT_MAP)


@dataclass(frozen=True, eq=False)
class Trace:
    """Rows in the order of time; the columns have one length.

    ``key`` names the block: its recorded address, or its number in a Recording; a block is the one that was last allocated under its key.
    ``bytes`` are requested bytes, for segments the bytes of the range, for ``OOM`` what could not be had.
    """

    kind: Column
    """int8, codes of `Kind`; the other columns are int64."""
    key: Column
    bytes: Column
    stream: Column
    source_row: Column
    """The row of the history or of the Recording's events that a row came from; -1 where it came from none."""

    @classmethod
    def of(
        cls,
        kind: Sequence[int] | Column,
        key: Sequence[int] | Column,
        num_bytes: Sequence[int] | Column,
        stream: Sequence[int] | Column,
        source_row: Sequence[int] | Column | None = None,
    ) -> Trace:
        """Return the trace of equally long columns; any sequence or array that holds integers."""
        rows = np.arange(len(kind)) if source_row is None else source_row
        wide = [np.asarray(column, np.int64) for column in (key, num_bytes, stream, rows)]
        return cls(np.asarray(kind, np.int8), wide[0], wide[1], wide[2], wide[3])

    @classmethod
    def from_recording(cls, recording: Recording, device: int = 0, rank: int = 0) -> Trace:
        """Return what a Recording says of one device as one rank sees it; blocks older than it are allocated first, in their order.

        Any device will do: what a recording of the host asked for can be tried on a card. Rows without bytes are left out: torch asks the
        allocator for nothing then.
        """
        events = recording.events
        mask = pc.and_(_is_of(events, device, rank), pc.greater(events["requested_bytes"], 0))
        rows = np.flatnonzero(pc.fill_null(mask, False).to_numpy())
        events = events.take(pa.array(rows))
        pools = recorded_pools(recording.metadata, device, rank)
        names = ("block", "requested_bytes", "stream", "address")
        key, num_bytes, stream, address = (events[name].fill_null(0).to_numpy() for name in names)
        trace = cls.of(_kinds(events["action"]), key, num_bytes, streams_by_pool(stream, address, pools), rows)
        segments = recording.segments.filter(_is_of(recording.segments, device, rank))
        return trace._with_releases(segments, events["time_us"].to_numpy(), pools)

    def __len__(self) -> int:
        return len(self.kind)

    def preceded_by(self, state: State) -> Trace:
        """Return the trace with the live blocks of ``state`` allocated before it, lowest address first.

        This is how other settings are tried on a history that did not begin empty: what was cached by an unknown past is left out.
        """
        blocks = [(block, segment.stream) for segment in state for block in segment.active_blocks]
        num = len(blocks)
        pending = [i for i, (block, _) in enumerate(blocks) if block.status is BlockStatus.PENDING]
        head = [Kind.ALLOC] * num + [Kind.FREE_REQUESTED] * len(pending)
        order = [*range(num), *pending]
        columns = [
            [blocks[i][0].address for i in order],
            [blocks[i][0].requested_bytes or blocks[i][0].bytes for i in order],
            [blocks[i][1] for i in order],
            [-1] * len(order),
        ]
        rest = (self.key, self.bytes, self.stream, self.source_row)
        joined = [np.concatenate([np.asarray(first, np.int64), then]) for first, then in zip(columns, rest, strict=True)]
        return Trace.of(np.concatenate([np.asarray(head, np.int8), self.kind]), *joined)

    def steps(self, until_row: int | None = None) -> Iterator[tuple[int, int, int, int, int]]:
        """Return the program's steps: ``Op``, key, bytes, stream, row; only those of rows before ``until_row`` where it is given.

        A free that completes at once is one step; a run of releases is one step; what the driver gave is left out.
        """
        columns = self._step_columns
        if until_row is not None:
            end = bisect_left(columns[-1], until_row)
            columns = [column[:end] for column in columns]
        return zip(*columns, strict=True)

    @cached_property
    def _step_columns(self) -> list[list[int]]:
        """The steps by field: a hundred settings are tried on one trace, and tuples that nobody keeps cost nothing."""
        ops = _OP_OF_KIND[self.kind]
        at_once = self.frees_at_once
        ops[at_once] = Op.FREE
        ops[at_once + 1] = _NO_STEP
        self._mark_releases(ops)
        keep = np.flatnonzero(ops >= 0)
        return [column.tolist() for column in (ops[keep], self.key[keep], self.bytes[keep], self.stream[keep], keep)]

    @property
    def frees_at_once(self) -> Column:
        """The rows that request a free which the next row completes, as is usual."""
        requested = (self.kind[:-1] == Kind.FREE_REQUESTED) & (self.kind[1:] == Kind.FREE_COMPLETED) & (self.key[:-1] == self.key[1:])
        return np.flatnonzero(requested)

    def _mark_releases(self, ops: Column) -> None:
        """Set one step at the beginning of each run of releases, by what follows the run."""
        released = np.flatnonzero((self.kind == Kind.SEGMENT_FREE) | (self.kind == Kind.SEGMENT_UNMAP))
        if not len(released):
            return
        gaps = np.flatnonzero(np.diff(released) > 1)
        starts, ends = released[np.append(0, gaps + 1)], released[np.append(gaps, -1)]
        follows = np.append(self.kind, Kind.OTHER)[ends + 1]
        ops[starts] = np.where(np.isin(follows, (*GROWTHS, Kind.OOM)), Op.RETRY, Op.EMPTY_CACHE)

    def _with_releases(self, segments: pa.Table, times_us: Column, pools: Sequence[PoolRange]) -> Trace:
        """Return the trace with the segments' rows of a Recording put in by time; segments that are older are no requests."""
        segments = segments.filter(pc.not_equal(segments["action"].cast(pa.string()), Action.PREEXISTING.value))
        kinds = _kinds(segments["action"])
        if not np.isin(kinds, (*RELEASES, Kind.OOM)).any():
            return self
        order = np.argsort(np.concatenate([times_us, segments["time_us"].to_numpy()]), kind="stable")
        address, num_bytes, stream = (segments[name].fill_null(0).to_numpy().astype(np.int64) for name in ("address", "bytes", "stream"))
        columns = [address, num_bytes, streams_by_pool(stream, address, pools), np.full(len(kinds), -1)]
        own = (self.key, self.bytes, self.stream, self.source_row)
        joined = [np.concatenate([first, then])[order] for first, then in zip(own, columns, strict=True)]
        return Trace.of(np.concatenate([self.kind, kinds])[order], *joined)


_NO_STEP = -1
_STEPS = {Kind.ALLOC: Op.ALLOC, Kind.FREE_REQUESTED: Op.FREE_REQUESTED, Kind.FREE_COMPLETED: Op.FREE_COMPLETED, Kind.OOM: Op.OOM}
_OP_OF_KIND = np.array([_STEPS.get(kind, _NO_STEP) for kind in Kind], np.int8)


def _is_of(table: pa.Table, device: int, rank: int) -> pa.ChunkedArray:
    return pc.and_(pc.equal(table["device"], device), pc.equal(pc.fill_null(table["rank"], 0), rank))


def _kinds(actions: pa.ChunkedArray) -> Column:
    """Return the kind of each action of a Recording's events or segments."""
    encoded = actions.unify_dictionaries().combine_chunks()
    known = KIND_OF_ACTION | {Action.PREEXISTING.value: Kind.ALLOC}
    kinds = np.asarray([known.get(action, Kind.OTHER) for action in encoded.dictionary.to_pylist()] or [Kind.OTHER], np.int8)
    found: Column = kinds[encoded.indices.fill_null(0).to_numpy()]
    return found

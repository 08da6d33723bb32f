"""A recording and an instant -> the segments that the allocator held then, and the blocks that tile them.

Where segments were recorded, this is what was; elsewhere it is the state of a replay at that instant.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pyarrow as pa

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.private_pools import without_pool
from profiler.allocator.replay import Failure, replay
from profiler.allocator.sizes import SMALL_BYTES, SMALL_SEGMENT_BYTES
from profiler.allocator.state import BlockState, BlockStatus, SegmentState, State
from profiler.allocator.trace import Trace
from profiler.analysis.columns import Array, read_names, read_numbers
from profiler.analysis.reserved import pending_ends
from profiler.analysis.segment_rows import lane_segments, signed_bytes
from profiler.analysis.timeline import Timeline
from profiler.recording import Provenance, Recording


class Use(Enum):
    """What a piece of a segment is held by. The value says it to users."""

    ALLOCATED = "allocated"
    WAITING = "freed, a stream still uses it"
    FREE = "free"
    SEVERAL = "several thin blocks"


_USES = {BlockStatus.ALLOCATED: Use.ALLOCATED, BlockStatus.PENDING: Use.WAITING, BlockStatus.INACTIVE: Use.FREE}


@dataclass(frozen=True, slots=True)
class Piece:
    """A block of a segment, or several thin neighbours that are drawn as one."""

    offset_bytes: int
    bytes: int
    requested_bytes: int
    use: Use
    place: int
    """In `Blocks`; -1 where it is none of them."""
    num_blocks: int = 1
    allocated_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MappedSegment:
    """A segment and its pieces, by address, without gaps."""

    address: int
    bytes: int
    stream: int
    is_small: bool
    is_expandable: bool
    pieces: tuple[Piece, ...]

    @property
    def free_bytes(self) -> int:
        """Bytes that no tensor holds."""
        return sum(piece.bytes for piece in self.pieces if piece.use is Use.FREE)

    @property
    def largest_free_bytes(self) -> int:
        """The largest block that a request could get."""
        return max((piece.bytes for piece in self.pieces if piece.use is Use.FREE), default=0)


@dataclass(frozen=True, eq=False)
class SegmentMap:
    """All segments at an instant, by address; reserved == allocated + waiting + free."""

    provenance: Provenance
    setting: str
    event: int
    segments: tuple[MappedSegment, ...]
    failure: Failure | None = None
    """Memory ran out before the instant: this is how things stood then."""

    def bytes_of(self, use: Use) -> int:
        """Return how many bytes are held so."""
        return sum(piece.bytes for segment in self.segments for piece in segment.pieces if piece.use is use)

    @property
    def reserved_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.bytes for segment in self.segments)


def simulated_map(
    timeline: Timeline,
    numbers: Array,
    trace: Trace,
    config: AllocatorConfig,
    event: int,
    *,
    setting: str = "",
    capacity_bytes: int | None = None,
) -> SegmentMap:
    """Return what an allocator with these settings would hold right after ``event``.

    Args:
        timeline: the lane.
        numbers: each block's number, by place in `Blocks` (`block_numbers`).
        trace: the lane's requests.
        config: the settings.
        event: the instant.
        setting: the settings' text.
        capacity_bytes: what the allocator may reserve; None: without limit.
    """
    later = np.flatnonzero(trace.source_row > event)
    run = replay(trace, config, Driver(capacity_bytes), until_row=int(later[0]) if len(later) else None)
    place_of = dict(zip(numbers[timeline.members].tolist(), timeline.members.tolist(), strict=True))
    places = {block.address: place_of.get(key, -1) for key, block in run.live.items()}
    segments = tuple(_mapped(segment, places) for segment in run.segments())
    return SegmentMap(Provenance.SIMULATED, setting, event, segments, run.oom)


def recorded_map(recording: Recording, timeline: Timeline, event: int, *, until_us: float | None = None) -> SegmentMap:
    """Return what the allocator held right after ``event``, as the recording says it.

    Args:
        recording: what to read.
        timeline: the lane.
        event: the instant.
        until_us: the time up to which segments came and went, where it is later than the event's.

    Raises:
        FormatError: blocks overlap or reach out of their segment.
    """
    blocks = timeline.blocks
    segments = lane_segments(recording, timeline.lane)
    now = until_us if until_us is not None else float(blocks.event_us[event]) if timeline.num_events else 0.0
    segments = segments.slice(0, int(np.searchsorted(read_numbers(segments["time_us"]), now, side="right")))
    born = blocks.birth_event[timeline.members] <= event
    held = timeline.members[born & (event < pending_ends(recording, timeline)) & (blocks.address[timeline.members] >= 0)]
    held = held[np.argsort(blocks.address[held], kind="stable")]
    requested = read_numbers(recording.events["requested_bytes"])[blocks.birth_event[held]]
    status = np.where(event < blocks.death_event[held], BlockStatus.ALLOCATED, BlockStatus.PENDING)
    columns = (blocks.address[held], blocks.bytes[held], requested, status)
    states = [
        BlockState(address, size, asked, BlockStatus(kind))
        for address, size, asked, kind in zip(*(column.tolist() for column in columns), strict=True)
        if size
    ]
    places = dict(zip(blocks.address[held].tolist(), held.tolist(), strict=True))
    found = tuple(_mapped(segment, places) for segment in _recorded_state(segments, states))
    return SegmentMap(recording.metadata.provenance, "", event, found)


def block_numbers(recording: Recording, timeline: Timeline) -> Array:
    """Return the number that each block has in the recording's events, by place in `Blocks`."""
    return np.asarray(read_numbers(recording.events["block"], -1)[timeline.blocks.birth_event])


def _mapped(segment: SegmentState, places: Mapping[int, int]) -> MappedSegment:
    pieces = tuple(
        Piece(
            block.address - segment.address,
            block.bytes,
            block.requested_bytes,
            _USES[block.status],
            places.get(block.address, -1) if block.status is not BlockStatus.INACTIVE else -1,
            allocated_bytes=block.bytes if block.status is BlockStatus.ALLOCATED else 0,
        )
        for block in segment.blocks
    )
    return MappedSegment(segment.address, segment.bytes, without_pool(segment.stream), segment.is_small, segment.is_expandable, pieces)


def _recorded_state(segments: pa.Table, blocks: list[BlockState]) -> State:
    """Return the segments that rows up to an instant leave, with the blocks that lie in them."""
    starts = [block.address for block in blocks]
    states = []
    for address, (num_bytes, stream, expandable) in sorted(_ranges(segments).items()):
        inside = blocks[bisect_left(starts, address) : bisect_left(starts, address + num_bytes)]
        is_small = all(block.bytes <= SMALL_BYTES for block in inside) and (bool(inside) or num_bytes == SMALL_SEGMENT_BYTES)
        states.append(
            SegmentState.around(inside, address=address, num_bytes=num_bytes, stream=stream, is_small=is_small, is_expandable=expandable)
        )
    return tuple(states)


def _ranges(segments: pa.Table) -> dict[int, tuple[int, int, bool]]:
    """Return bytes, stream and whether it is of pages, by address; pages that touch are one range."""
    found: dict[int, tuple[int, int, bool]] = {}
    streams, addresses = read_numbers(segments["stream"]).tolist(), read_numbers(segments["address"], -1).tolist()
    actions, changes = read_names(segments["action"]).texts().tolist(), signed_bytes(segments).tolist()
    for action, address, change, stream in zip(actions, addresses, changes, streams, strict=True):
        if change > 0:
            found[address] = (change, stream, action == "segment_map")
        elif change < 0:
            _cut(found, address, address - change)
    return _joined(found.items())


def _cut(ranges: dict[int, tuple[int, int, bool]], low: int, high: int) -> None:
    """Take ``[low, high)`` out; it may be a part of a range, or span several."""
    if low in ranges and ranges[low][0] == high - low:
        del ranges[low]
        return
    touched = [(start, *rest) for start, rest in ranges.items() if start < high and low < start + rest[0]]
    for start, num_bytes, stream, _ in touched:
        del ranges[start]
        for left, right in ((start, low), (high, start + num_bytes)):
            if left < right:
                ranges[left] = (right - left, stream, True)


def _joined(ranges: Iterable[tuple[int, tuple[int, int, bool]]]) -> dict[int, tuple[int, int, bool]]:
    joined: dict[int, tuple[int, int, bool]] = {}
    last = None
    for address, (num_bytes, stream, of_pages) in sorted(ranges):
        if last is not None and of_pages and joined[last][2] and (last + joined[last][0], joined[last][1]) == (address, stream):
            joined[last] = (joined[last][0] + num_bytes, stream, True)
        else:
            joined[address] = (num_bytes, stream, of_pages)
            last = address
    return joined

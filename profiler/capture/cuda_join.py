"""Torch.profiler's events on GPUs + the allocator's history -> one order of events, exact in bytes, segments and delayed frees.

The profiler knows the operator and the block's bytes of what its threads do; the history knows every action of every thread, with the
bytes that were asked for. Both are written under the allocator's lock, so on one GPU they have one order, which is the history's. The
clocks only tell apart what a thread without the profiler did at the same address.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from profiler.allocator.recorded_ooms import MAX_OOMS, RecordedOom
from profiler.capture.cuda_history import MAX_ENTRIES, Entry, HeldSegment, Snapshot
from profiler.capture.stacks import Stacks
from profiler.recording import Action
from profiler.tracing.raw import Allocation, ExistingBlock, FreeCompleted, MemoryEvent, RawWindow
from profiler.tracing.segments import Reserved, SegmentRows

_ROUNDING_BYTES = 512


class CudaJoin:
    """Joins window after window; what is reserved lives on across windows."""

    def __init__(self, origin_ns: int, rank: int) -> None:
        self._origin_ns = origin_ns
        self._rank = rank
        self._reserved: defaultdict[int, Reserved] = defaultdict(Reserved)
        self._stacks = Stacks()
        self._opening: list[HeldSegment] = []
        self.num_without_operator = 0
        """Allocations and frees that only the history saw."""
        self.num_without_history = 0
        """Allocations and frees that only the profiler saw."""
        self.num_disagreements = 0
        """Events at which torch's own reserved bytes were not the sum of the segments."""
        self.num_lost_windows = 0
        """Windows whose history was longer than the ring that torch keeps it in."""
        self.ooms: deque[RecordedOom] = deque(maxlen=MAX_OOMS)
        """The last times that memory ran out."""

    def begin(self, snapshot: Snapshot) -> list[ExistingBlock]:
        """Count what is reserved before the first window, and return the blocks in it."""
        self._opening = snapshot.segments
        existing = []
        for segment in snapshot.segments:
            self._reserved[segment.device].add(segment.address, segment.num_bytes, joins=segment.expandable)
            for block in segment.blocks:
                allocation = Allocation(block.requested_bytes, segment.stream, segment.address, None)
                existing.append(ExistingBlock(segment.device, block.address, block.num_bytes, allocation, block.freed))
        return existing

    def join(self, raw: RawWindow, snapshot: Snapshot) -> dict[str, pa.Table]:
        """Put the history's facts and order into a window's events; return parts of the tables ``segments`` and ``stacks``.

        Args:
            raw: the window; its events are replaced.
            snapshot: taken right after the window ended.
        """
        rows = SegmentRows()
        for segment in self._opening:
            rows.add(raw.start_ns, segment.device, Action.PREEXISTING, segment.address, segment.num_bytes, segment.stream, None)
        self._opening = []
        seen: defaultdict[int, list[MemoryEvent]] = defaultdict(list)
        joined: list[Any] = []
        for event in raw.events:
            if isinstance(event, MemoryEvent) and event.device >= 0:
                seen[event.device].append(event)
            else:
                joined.append(event)
        for device in sorted(seen.keys() | snapshot.entries.keys()):
            joined += self._join_device(device, seen[device], snapshot, raw.start_ns, rows)
        raw.events = sorted(joined, key=lambda event: event.time_ns)  # stable: what a GPU's history put at one time stays in its order
        self._settle(snapshot.segments, max(raw.end_ns, raw.events[-1].time_ns if raw.events else 0), rows)
        return {"segments": rows.to_table(self._origin_ns, self._rank), "stacks": self._stacks.take()}

    def _join_device(
        self, device: int, events: list[MemoryEvent], snapshot: Snapshot, start_ns: int, rows: SegmentRows
    ) -> Iterator[MemoryEvent | FreeCompleted]:
        entries = snapshot.entries.get(device, [])
        held = _held_bytes(device, snapshot)
        self.num_lost_windows += len(entries) >= MAX_ENTRIES
        matches = match(events, entries)
        matched = set(matches.values())
        for number, event in enumerate(events):
            if number not in matched:
                self.num_without_history += 1
                yield event
        counterparts = [events[matches[place]] if place in matches else None for place in range(len(entries))]
        times = _times(entries, counterparts, start_ns)
        for place, (entry, counterpart, time_ns) in enumerate(zip(entries, counterparts, times, strict=True)):
            if entry.action in ("alloc", "free_requested"):
                yield self._memory(device, entry, counterpart, time_ns, held.get(place))
            elif entry.action == "free_completed":
                yield FreeCompleted(time_ns, entry.address, device)
            else:
                self._segment(device, entry, time_ns, rows)

    def _memory(self, device: int, entry: Entry, event: MemoryEvent | None, time_ns: int, held_bytes: int | None) -> MemoryEvent:
        """Return an allocation or free; where the profiler did not see it, of the bytes that are held, or else of what was asked for."""
        reserved = self._reserved[device]
        allocation = None
        if entry.action == "alloc":
            allocation = Allocation(entry.num_bytes, entry.stream, reserved.find(entry.address), self._stacks.number(entry.frames))
        if event is not None:
            self.num_disagreements += event.total_reserved != reserved.num_bytes
            return event._replace(time_ns=time_ns, allocation=allocation)
        self.num_without_operator += 1
        num_bytes = held_bytes or -(-max(entry.num_bytes, 1) // _ROUNDING_BYTES) * _ROUNDING_BYTES
        return MemoryEvent(time_ns, entry.address, num_bytes if allocation else -num_bytes, None, device, allocation=allocation)

    def _segment(self, device: int, entry: Entry, time_ns: int, rows: SegmentRows) -> None:
        reserved = self._reserved[device]
        address: int | None = entry.address
        if entry.action in ("segment_alloc", "segment_map"):
            reserved.add(entry.address, entry.num_bytes, joins=entry.action == "segment_map")
        elif entry.action in ("segment_free", "segment_unmap"):
            reserved.remove(entry.address, entry.num_bytes)
        else:
            address = None
        if entry.action == "oom":
            self.ooms.append(RecordedOom(device, entry.num_bytes, entry.device_free_bytes))
        rows.add(time_ns, device, entry.action, address, entry.num_bytes, entry.stream, self._stacks.number(entry.frames))

    def _settle(self, segments: list[HeldSegment], time_ns: int, rows: SegmentRows) -> None:
        """Where the segments that are known are not those that exist, because history was lost, put that right with rows at ``time_ns``."""
        actual: defaultdict[int, Reserved] = defaultdict(Reserved)
        for segment in segments:
            actual[segment.device].add(segment.address, segment.num_bytes, joins=segment.expandable)
        for device in sorted(actual.keys() | self._reserved.keys()):
            known, real = self._reserved[device], actual[device]
            if known.num_bytes == real.num_bytes:
                continue
            self.num_disagreements += 1
            gone, new = known.ranges().items() - real.ranges().items(), real.ranges().items() - known.ranges().items()
            for action, ranges in (("segment_free", gone), ("segment_alloc", new)):
                for address, num_bytes in sorted(ranges):
                    rows.add(time_ns, device, action, address, num_bytes, None, None)
            self._reserved[device] = real

    def warnings(self) -> list[str]:
        """Return what the recording cannot show exactly, one sentence each."""
        told = [
            (self.num_without_operator, "allocations and frees on GPUs ran where torch.profiler does not see them: they have no operator."),
            (self.num_without_history, "allocations and frees on GPUs are not in the allocator's history: bytes asked for are not known."),
            (self.num_disagreements, "events differ between torch's own reserved bytes and the sum of the segments."),
            (self.num_lost_windows, f"windows made more than {MAX_ENTRIES:,} entries of the allocator's history; the oldest were lost."),
        ]
        return [f"{count:,} {what}" for count, what in told if count]


def _held_bytes(device: int, snapshot: Snapshot) -> dict[int, int]:
    """Return the bytes of the blocks that are held in the end, by the place of the entry which allocated them."""
    last = {entry.address: place for place, entry in enumerate(snapshot.entries.get(device, [])) if entry.action == "alloc"}
    blocks = (block for segment in snapshot.segments if segment.device == device for block in segment.blocks)
    return {last[block.address]: block.num_bytes for block in blocks if block.address in last}


def match(events: list[MemoryEvent], entries: list[Entry]) -> dict[int, int]:
    """Return for places in ``entries`` the places of the same facts in ``events``, both of one GPU and in the order of time.

    An allocation or free is told by its address; the n-th there by its order, and where one side has fewer of them, by time.
    """
    wanted: defaultdict[tuple[int, bool], list[int]] = defaultdict(list)
    found: defaultdict[tuple[int, bool], list[int]] = defaultdict(list)
    for place, event in enumerate(events):
        wanted[event.pointer, event.num_bytes > 0].append(place)
    for place, entry in enumerate(entries):
        if entry.action in ("alloc", "free_requested"):
            found[entry.address, entry.action == "alloc"].append(place)
    matches: dict[int, int] = {}
    for key, ours in wanted.items():
        theirs = found[key]
        our_times, their_times = [events[place].time_ns for place in ours], [entries[place].time_ns for place in theirs]
        if len(ours) <= len(theirs):
            pairs = _nearest(our_times, their_times)
        else:
            pairs = [(our, their) for their, our in _nearest(their_times, our_times)]
        matches.update((theirs[their], ours[our]) for our, their in pairs)
    return matches


def _nearest(few: list[int], many: list[int]) -> list[tuple[int, int]]:
    """Pair each of ``few`` with the nearest of ``many``, both sorted, in order and each at most once."""
    pairs = []
    place = 0
    for number, time in enumerate(few):
        last = len(many) - (len(few) - number)  # leaves one for each that follows
        while place < last and abs(many[place + 1] - time) <= abs(many[place] - time):
            place += 1
        pairs.append((number, place))
        place += 1
    return pairs


def _times(entries: list[Entry], counterparts: list[MemoryEvent | None], start_ns: int) -> list[int]:
    """Return the entries' times on the profiler's clock, never falling: their counterparts' own, or their own held between neighbours."""
    latest = [0] * len(entries)
    bound = max((entry.time_ns for entry in entries), default=0)
    for place in range(len(entries) - 1, -1, -1):
        event = counterparts[place]
        bound = event.time_ns if event else bound
        latest[place] = bound
    times = []
    now = start_ns
    for place, (entry, event) in enumerate(zip(entries, counterparts, strict=True)):
        wanted = event.time_ns if event else min(max(entry.time_ns, now + 1), latest[place])
        now = max(now, wanted)
        times.append(now)
    return times

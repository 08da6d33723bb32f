"""The notebook of a simulated run: notes, allocations and operator calls in one list, on a clock that simulated work moves forward."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch

from profiler.simulate.memory import Memory, Place
from profiler.tracing.notes import Note, Notebook
from profiler.tracing.raw import Call, Interval, MemoryEvent, NoteEvent, RawWindow
from profiler.tracing.segments import SegmentRows


class Standing(NamedTuple):
    """Where in the program the simulation stands."""

    module: str | None
    operator: str | None
    in_backward: bool
    recomputed: bool


NOWHERE = Standing(None, None, False, False)
_WITHOUT_LENGTH = ("labels", "gone")
_NO_PLACE = Place(0, 0, None)


class _Live(NamedTuple):
    place: Place
    memory: Memory
    storage: weakref.ref[torch.UntypedStorage]


class SimulatedNotebook(Notebook):
    """What happens, in order; knows where every storage that is alive lives.

    Args:
        tick_ns: how far an event moves the clock, so that no two share a moment.
    """

    def __init__(self, tick_ns: int) -> None:
        self.now_ns = 0
        self.standing = NOWHERE
        self.modules: list[str] = []
        """Those whose forward runs, outermost first."""
        self._tick_ns = tick_ns
        self._raw = RawWindow(0, 0)
        self._segments = SegmentRows()
        self._live: dict[int, _Live] = {}
        self._nodes: list[int] = []
        """When the first of autograd's nodes in a row began and the last one ended."""

    def turn_page(self) -> tuple[RawWindow, SegmentRows]:
        """Return the window that ends now and begin the next."""
        self._end_nodes()
        raw, self._raw = self._raw, RawWindow(self.now_ns, 0)
        raw.end_ns = self.tick()
        raw.intervals.sort(key=lambda interval: interval.start_ns)
        segments, self._segments = self._segments, SegmentRows()
        return raw, segments

    def tick(self) -> int:
        """Move the clock to the next moment and return it."""
        self.now_ns += self._tick_ns
        return self.now_ns

    def open(self, note: Note) -> _OpenNote:
        """Begin an interval now."""
        if note.kind not in _WITHOUT_LENGTH:
            self._end_nodes()
        if note.kind == "module":
            self.modules.append(note.name)
        return _OpenNote(self, note, self.tick())

    def close(self, note: Note, start_ns: int) -> None:
        """End an interval now; a note without length is an event."""
        if note.kind in _WITHOUT_LENGTH:
            self._raw.events.append(NoteEvent(start_ns, note))
            return
        self._end_nodes()
        kind = note.kind
        if kind == "module":
            self.modules.pop()
            self._raw.events.append(NoteEvent(self.tick(), note))
            if torch._C._current_graph_task_id() != -1:
                kind = "node"  # a forward that is run again is part of backward
        self._raw.intervals.append(Interval(kind, note.name, start_ns, self.tick()))

    def ran_node(self, start_ns: int) -> None:
        """Note that autograd ran something of a backward since ``start_ns``."""
        self._nodes[:] = (self._nodes[0] if self._nodes else start_ns), self.tick()

    def _end_nodes(self) -> None:
        if self._nodes:
            self._raw.intervals.append(Interval("node", "", *self._nodes))
            self._nodes.clear()

    def called(self, call: Call) -> None:
        """Note an operator's call."""
        self._raw.calls.append(call)

    def on_segment(self, action: str, address: int, num_bytes: int, stream: int) -> None:
        """Note what the allocator of GPU 0 did with the driver."""
        self._segments.add(self.tick(), 0, action, address, num_bytes, stream, None)

    def hold_tensors(self, value: Any, memory: Memory) -> None:
        """Give the storages of a tensor, or of those in a list, their places, until they die; known ones keep theirs."""
        if isinstance(value, torch.Tensor):
            self.hold(value.untyped_storage(), memory)
        elif isinstance(value, (list, tuple)):
            for item in value:
                if isinstance(item, torch.Tensor):
                    self.hold(item.untyped_storage(), memory)

    def hold(self, storage: torch.UntypedStorage, memory: Memory) -> None:
        """Give a storage its place, until it dies; a known one keeps its own."""
        key = storage._cdata
        if key in self._live:
            return
        num_bytes = storage.nbytes()
        if num_bytes == 0:
            return  # torch asks no allocator for nothing
        self.hold_at(self.allocate(num_bytes, memory), storage, memory)

    def hold_at(self, place: Place, storage: torch.UntypedStorage, memory: Memory) -> None:
        """Free a place that was allocated when a storage dies."""
        key = storage._cdata
        self._live[key] = _Live(place, memory, weakref.ref(storage, lambda _: self._died(key)))

    def resized(self, storage: torch.UntypedStorage) -> None:
        """Give a storage whose size was changed another place; one of no bytes has none, but keeps its memory's name."""
        live = self._live.get(storage._cdata)
        if live is None:
            return
        if live.place.num_bytes:
            self.free(live.place, live.memory)
        num_bytes = storage.nbytes()
        place = self.allocate(num_bytes, live.memory) if num_bytes else _NO_PLACE
        self._live[storage._cdata] = live._replace(place=place)

    def allocate(self, num_bytes: int, memory: Memory) -> Place:
        """Allocate bytes that belong to no storage, or not yet."""
        place = memory.allocate(num_bytes)
        self._memory_event(place, memory, place.num_bytes)
        return place

    def free(self, place: Place, memory: Memory) -> None:
        """Free what `allocate` returned."""
        memory.free(place.address)
        self._memory_event(place, memory, -place.num_bytes)

    def place_of(self, tensor: torch.Tensor) -> tuple[torch.UntypedStorage | None, int]:
        """Return a tensor's storage and its simulated address; no storage where it was never given a place."""
        try:
            storage = tensor.untyped_storage()
        except (RuntimeError, NotImplementedError):
            return None, 0
        live = self._live.get(storage._cdata)
        return (None, 0) if live is None or not live.place.num_bytes else (storage, live.place.address)

    def device_of(self, tensor: torch.Tensor) -> int:
        """Return the index of the GPU that a tensor was placed on; -1 for the host."""
        live = self._live.get(tensor.untyped_storage()._cdata)
        return -1 if live is None else live.memory.index

    def _died(self, key: int) -> None:
        live = self._live.pop(key)
        if live.place.num_bytes:
            self.free(live.place, live.memory)

    def _memory_event(self, place: Place, memory: Memory, num_bytes: int) -> None:
        module, operator, in_backward, recomputed = self.standing
        self._raw.events.append(
            MemoryEvent(
                time_ns=self.tick(),
                pointer=place.address,
                num_bytes=num_bytes,
                total_allocated=None,
                device=memory.index,
                module=module,
                operator=operator,
                in_backward=in_backward,
                recomputed=recomputed,
                allocation=place.allocation,
            )
        )


class _OpenNote:
    """A note whose end has not come."""

    __slots__ = ("_note", "_notebook", "_start_ns")

    def __init__(self, notebook: SimulatedNotebook, note: Note, start_ns: int) -> None:
        self._notebook, self._note, self._start_ns = notebook, note, start_ns

    def __exit__(self, *_: object) -> None:
        self._notebook.close(self._note, self._start_ns)

"""One torch.profiler window -> the memory events of a stretch of a run, each with the operator and module that it happened in.

The profiler's event tree is walked once, depth first, which is the order of time on a thread; threads are merged by time afterwards.
"""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from profiler.capture.notebook import PREFIX
from profiler.errors import CaptureUnavailable
from profiler.tracing.notes import Note
from profiler.tracing.raw import Call, Interval, MemoryEvent, NoteEvent, RawWindow

_EventType = torch._C._profiler._EventType
_BACKWARD_NODE = "autograd::engine::evaluate_function: "
_ALLOCATING_LEAVES = frozenset(
    "aten::" + name
    for name in (
        "empty",
        "empty_strided",
        "empty_like",
        "new_empty",
        "new_empty_strided",
        "resize_",
        "resize_output_",
        "resolve_conj",
        "as_strided",
    )
)
"""Operators that only make room for another's result; the operator that wanted it is named instead."""


class Window:
    """A torch.profiler run over a stretch of the program.

    Raises:
        CaptureUnavailable: another profiler is running.
    """

    def __init__(self) -> None:
        # Kineto reads it when it first starts; its lines on stderr say nothing to the user.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        if torch._C._autograd._profiler_enabled():
            raise CaptureUnavailable(
                "torch.profiler runs already in this process, and only one can run at a time. Stop the other one first."
            )
        self._profile: Any = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.start()

    def stop(self, notes: list[Note]) -> RawWindow:
        """End the window and return what it saw; ``notes`` are those that were written in it."""
        self._profile.stop()
        inner = self._profile.profiler
        roots = inner.kineto_results.experimental_event_tree()
        raw = _Walk(notes, _forward_threads(roots, inner.kineto_results)).run(roots)
        # The profile object and its results refer to each other; let them go now, not when a collection happens to run.
        inner.kineto_results = None
        self._profile.profiler = None
        self._profile.action_map = {}
        self._profile = None
        return raw


class _Place(NamedTuple):
    """Where in the program the walk stands."""

    module: str | None
    operator: str | None
    in_backward: bool
    recomputed: bool
    top: bool
    """No operator encloses this."""


def _forward_threads(roots: list[Any], results: Any) -> dict[int, int]:
    """Return the thread that made each autograd node which ran, by the number of the event; nothing where there is but one thread.

    Every thread counts autograd's sequence numbers from zero, and on a GPU backward, with what it recomputes, has a thread of its own. The
    event tree lacks the forward's thread, which Kineto's flat list of the same events holds.
    """
    if len({root.start_tid for root in roots}) < 2:
        return {}
    return {event.correlation_id(): thread for event in results.events() if (thread := event.fwd_thread_id())}


class _Walk:
    def __init__(self, notes: list[Note], forward_threads: dict[int, int]) -> None:
        self._notes = notes
        self._forward_threads = forward_threads
        self._modules_by_sequence: dict[tuple[int, int], str | None] = {}
        self._raw = RawWindow(0, 0)

    def run(self, roots: list[Any]) -> RawWindow:
        nowhere = _Place(None, None, False, False, True)
        for root in sorted(roots, key=lambda root: root.start_time_ns):  # of several threads: a forward before its backward
            self._visit(root, nowhere)
        raw = self._raw
        raw.events.sort(key=lambda event: event.time_ns)  # stable: one thread's events keep their order
        raw.intervals.sort(key=lambda interval: interval.start_ns)
        times = [root.start_time_ns for root in roots]
        raw.start_ns = min(times, default=time.time_ns())
        ends = [interval.end_ns for interval in raw.intervals]
        raw.end_ns = max([event.time_ns for event in raw.events] + ends, default=raw.start_ns)
        return raw

    def _visit(self, node: Any, place: _Place) -> None:
        tag = node.tag
        if tag == _EventType.Allocation:
            self._memory(node, place)
            return
        end_note = None
        if tag == _EventType.TorchOp:
            name = node.name
            if name.startswith(PREFIX):
                place, end_note = self._note(node, name, place)
            elif name.startswith(_BACKWARD_NODE):
                place = self._backward_node(node, place)
            else:
                place = self._operator(node, name, place)
        for child in node.children:
            self._visit(child, place)
        if end_note is not None:
            self._raw.events.append(NoteEvent(node.end_time_ns, end_note))

    def _memory(self, node: Any, place: _Place) -> None:
        fields = node.extra_fields
        device = fields.device
        index = (device.index or 0) if device.type == "cuda" else -1
        event = MemoryEvent(
            time_ns=node.start_time_ns,
            pointer=fields.ptr,
            num_bytes=fields.alloc_size,
            total_allocated=fields.total_allocated,
            device=index,
            module=place.module,
            operator=place.operator,
            in_backward=place.in_backward,
            recomputed=place.recomputed,
            total_reserved=fields.total_reserved,
        )
        self._raw.events.append(event)

    def _note(self, node: Any, name: str, place: _Place) -> tuple[_Place, Note | None]:
        note = self._notes[int(name[len(PREFIX) :])]
        if note.kind in ("labels", "gone"):
            self._raw.events.append(NoteEvent(node.start_time_ns, note))
            return place, None
        self._raw.intervals.append(Interval(note.kind, note.name, node.start_time_ns, node.end_time_ns))
        if note.kind == "module":
            place = place._replace(module=note.name, operator=None, recomputed=place.in_backward, top=True)
        return place, note if note.kind == "module" else None

    def _backward_node(self, node: Any, place: _Place) -> _Place:
        self._raw.intervals.append(Interval("node", "", node.start_time_ns, node.end_time_ns))
        thread = self._forward_threads.get(node.correlation_id, node.start_tid)
        module = self._modules_by_sequence.get((thread, node.extra_fields.sequence_number))
        operator = node.name[len(_BACKWARD_NODE) :]
        return _Place(module, operator, True, False, True)

    def _operator(self, node: Any, name: str, place: _Place) -> _Place:
        if name.startswith("Optimizer."):
            self._raw.intervals.append(Interval("torch", name, node.start_time_ns, node.end_time_ns))
            return place
        sequence = node.extra_fields.sequence_number
        if sequence >= 0 and (not place.in_backward or place.recomputed):
            # Several operators see one number; the last of them made the autograd node.
            self._modules_by_sequence[node.start_tid, sequence] = place.module
        if not name.startswith("aten::"):
            return place
        if place.top:
            self._raw.calls.append(Call(node.start_time_ns, node.end_time_ns - node.start_time_ns, place.module, name))
        if name in _ALLOCATING_LEAVES and place.operator:
            return place._replace(top=False)
        return place._replace(operator=name, top=False)

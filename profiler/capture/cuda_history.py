"""The CUDA allocator's own history -> entries, one window at a time: what was asked for, reserved segments, delayed frees, call stacks.

Torch keeps the history in a ring of bounded length. It is read and emptied at the end of every window, so memory stays flat.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

MAX_ENTRIES = 200_000
"""Entries of one window and GPU; a step of a large model makes some ten thousand."""


class Entry(NamedTuple):
    """One action of the allocator of a GPU."""

    action: str
    """``alloc``, ``free_requested``, ``free_completed``; ``segment_alloc``, ``segment_free``, ``segment_map``, ``segment_unmap``; ``oom``,
    ``snapshot``."""
    time_ns: int
    """Since 1970. Torch gives whole microseconds of a clock that it converts anew each time: good for an order, not as a name."""
    address: int
    num_bytes: int
    """Of a block what was asked for; of a segment its size."""
    stream: int
    frames: list[dict[str, Any]]
    device_free_bytes: int | None = None
    """What the driver still had when memory ran out."""


class HeldBlock(NamedTuple):
    """A block that a tensor holds, or whose memory a stream still uses."""

    address: int
    num_bytes: int
    requested_bytes: int
    freed: bool
    """Its free was requested and not completed."""


class HeldSegment(NamedTuple):
    """A range that is reserved, and the blocks in it that are in use."""

    device: int
    address: int
    num_bytes: int
    stream: int
    expandable: bool
    blocks: list[HeldBlock]


@dataclass(frozen=True)
class Snapshot:
    """The allocators' state at one moment, and what led to it since the last one."""

    segments: list[HeldSegment]
    entries: dict[int, list[Entry]]
    """By GPU, oldest first."""
    settings: dict[str, Any]
    """Torch's ``allocator_settings``, plain data: what PYTORCH_CUDA_ALLOC_CONF or the program set."""


class CudaHistory:
    """Torch's recording of the allocator's history, on while the object is started."""

    def start(self) -> Snapshot:
        """Switch the history on and return what is held at this moment."""
        _record(clear=False)
        return self.take()

    def take(self) -> Snapshot:
        """Return what happened since the last call, and forget it."""
        snapshot = read_snapshot(torch.cuda.memory._snapshot())
        _record(clear=True)
        return snapshot

    def stop(self) -> None:
        """Switch the history off."""
        torch.cuda.memory._record_memory_history(None)


def why_no_history() -> str | None:
    """Return why the allocator's history cannot be recorded here; None where it can. Needs CUDA."""
    backend = torch.cuda.memory.get_allocator_backend()
    if backend != "native":
        return f"The CUDA allocator is {backend}, which keeps no history: requested bytes, segments and call stacks are not recorded."
    if torch._C._cuda_isHistoryEnabled():
        return (
            "The program records the CUDA allocator's history itself, so it was left alone: requested bytes, segments and call stacks are "
            "not recorded. Remove torch.cuda.memory._record_memory_history from the program to have them."
        )
    return None


def _record(*, clear: bool) -> None:
    """Record allocations with their Python stacks. Torch before 2.7 forgets old entries only when the history is switched off."""
    record = torch.cuda.memory._record_memory_history
    options: dict[str, Any] = {}
    if clear and "clear_history" in inspect.signature(record).parameters:
        options["clear_history"] = True
    elif clear:
        record(None)
    record("all", context="alloc", stacks="python", max_entries=MAX_ENTRIES, **options)


def read_snapshot(raw: dict[str, Any]) -> Snapshot:
    """Return a snapshot as torch gives it, as data of this module.

    Args:
        raw: what ``torch.cuda.memory._snapshot()`` returned in this process.
    """
    traces = enumerate(raw["device_traces"])
    return Snapshot(
        segments=[_read_segment(segment) for segment in raw["segments"]],
        entries={device: [_read_entry(entry) for entry in trace] for device, trace in traces if trace},
        settings=dict(raw.get("allocator_settings") or {}),
    )


def _read_entry(raw: dict[str, Any]) -> Entry:
    return Entry(
        action=raw["action"],
        time_ns=raw["time_us"] * 1000,
        address=raw.get("addr", 0),
        num_bytes=raw["size"],
        stream=raw["stream"],
        frames=raw.get("frames", []),
        device_free_bytes=raw.get("device_free"),
    )


def _read_segment(raw: dict[str, Any]) -> HeldSegment:
    blocks = [
        HeldBlock(block["address"], block["size"], block["requested_size"], block["state"] != "active_allocated")
        for block in raw["blocks"]
        if block["state"] != "inactive"
    ]
    return HeldSegment(raw["device"], raw["address"], raw["total_size"], raw["stream"], raw.get("is_expandable", False), blocks)

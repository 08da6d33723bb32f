"""What an engine saw of a stretch of a run, before it becomes part of a recording: one list of events in the order of time.

A window is filled from torch.profiler's event tree where a run is measured and by the tracker where it is simulated; from here on nothing
asks which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from profiler.tracing.notes import Note


class Allocation(NamedTuple):
    """What the CUDA allocator's own history adds to a memory event."""

    requested_bytes: int
    stream: int
    segment: int | None
    """Address of the reserved range that holds the block."""
    stack: int | None


class MemoryEvent(NamedTuple):
    """Torch's own memory event, and where it happened."""

    time_ns: int
    pointer: int
    num_bytes: int
    """Negative when freed. On a GPU the bytes of the block, not what was asked for."""
    total_allocated: int | None
    """Torch's own sum after this event; None where only the allocator's history saw it."""
    device: int
    module: str | None = None
    operator: str | None = None
    in_backward: bool = False
    recomputed: bool = False
    total_reserved: int = 0
    allocation: Allocation | None = None


class FreeCompleted(NamedTuple):
    """No stream uses a freed block any more; only the CUDA allocator's history tells."""

    time_ns: int
    pointer: int
    device: int


class NoteEvent(NamedTuple):
    """A note's place in time; of an interval, its end."""

    time_ns: int
    note: Note


class Interval(NamedTuple):
    """A named stretch of time."""

    kind: str
    name: str
    start_ns: int
    end_ns: int


class Call(NamedTuple):
    """One operator call that a module, the autograd engine or the script made directly."""

    time_ns: int
    duration_ns: int
    module: str | None
    operator: str
    flops: int | None = None
    num_bytes: int | None = None
    """Read and written."""


@dataclass
class RawWindow:
    """Everything that one window saw, in the order of time."""

    start_ns: int
    end_ns: int
    events: list[MemoryEvent | FreeCompleted | NoteEvent] = field(default_factory=list)
    intervals: list[Interval] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


class ExistingBlock(NamedTuple):
    """A block that the allocator holds when the recording begins."""

    device: int
    address: int
    num_bytes: int
    allocation: Allocation
    freed: bool
    """Its free was requested and not completed."""


@dataclass(frozen=True)
class Structure:
    """What the hooks know of the models."""

    output_layers: frozenset[str]
    leaves: frozenset[str]

"""A recording -> the few facts by which runs are compared: its peak and what it is made of, the peak of each phase, time and loss."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np

from profiler.analysis.blocks import Lane
from profiler.analysis.categories import CATEGORIES
from profiler.analysis.measured_only import measured_only
from profiler.analysis.module_tree import of_any_layer
from profiler.analysis.segment_rows import peak_reserved_bytes
from profiler.analysis.timeline import Timeline
from profiler.capture.repeated import Repeated
from profiler.recording import HOST, Category, Phase, Provenance, Recording

WORTH_NAMING = 0.02
"""Of a peak: smaller changes are left out of sentences and verdicts; the tables have them."""


class Spread(NamedTuple):
    """A time that was measured several times, in seconds."""

    median: float
    low: float
    high: float
    num: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of numbers; None where there are none."""
        return cls(statistics.median(values), min(values), max(values), len(values)) if values else None


class Level(NamedTuple):
    """What was allocated at one instant."""

    phase: Phase
    num_bytes: int
    categories: Mapping[Category, int]
    """They sum to ``num_bytes``."""
    module: str | None = None
    """The module that ran, by its path; None where the recording does not tell."""
    operator: str | None = None


class Holder(NamedTuple):
    """What memory is held for: blocks of one category in one place."""

    category: Category
    place: str
    """The module, numbered layers taken together; without one the operator that allocated; empty where neither is known."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one run took. Sizes are of the GPU, where one holds anything, else of the host."""

    recording_id: str | None
    provenance: Provenance
    peak: Level
    peak_step: int
    alive: Mapping[Holder, int] = field(default_factory=dict)
    """Bytes at the peak by what they are for; they sum to it."""
    phases: Mapping[Phase, Level]
    """Of each phase of the steps that count, the instant at which the most was allocated in it."""
    reserved_bytes: int | None = None
    """The most that the allocator had reserved; None where nothing tells."""
    operators: frozenset[str] = frozenset()
    """Those that allocated there, in any step; none where the recording does not tell."""
    host_bytes: int = 0
    """The most that a GPU's run held on the host, pinned or not; 0 for a run on the CPU."""
    cpu_seconds: Spread | None = None
    """Processor time of a step, measured without the profiler; None unless measured."""
    wall_seconds: Spread | None = None
    estimated_step_seconds: float | None = None
    """Of a simulated step on a GPU, by a roofline."""
    losses: Sequence[float] = ()
    """Of the steps that count; none unless measured."""
    repeated_losses: Sequence[float] = ()
    """Of the same steps run again: how far they differ is how exactly this machine repeats itself."""
    notes: Sequence[str] = ()
    """What its optimizations found, such as that one changed nothing."""
    measured_only: Mapping[str, int] = field(default_factory=dict)
    """By how many bytes each mechanism that no simulation has raises the peak, by its name."""

    @classmethod
    def of(cls, recording: Recording) -> Self:
        """Return the facts of a recording."""
        timeline, metadata = Timeline.of(recording), recording.metadata
        facts, repeated = metadata.facts, Repeated.of(metadata)
        is_measured = metadata.provenance is Provenance.MEASURED
        return cls(
            recording_id=metadata.id,
            provenance=metadata.provenance,
            peak=_level(recording, timeline, timeline.peak_event),
            peak_step=int(timeline.blocks.event_step[timeline.peak_event]) if timeline.num_events else -1,
            alive=_alive(timeline),
            phases={phase: _level(recording, timeline, event) for phase, event in timeline.phase_peak_events.items()},
            reserved_bytes=peak_reserved_bytes(recording, timeline.lane),
            operators=_operators(timeline),
            host_bytes=_host_bytes(recording, timeline),
            cpu_seconds=Spread.of(repeated.cpu_seconds),
            wall_seconds=Spread.of(repeated.wall_seconds),
            estimated_step_seconds=None if is_measured else facts.get("estimated_step_seconds"),
            losses=_losses(recording) if is_measured else (),
            repeated_losses=repeated.losses,
            notes=tuple(facts.get("notes", ())),
            measured_only=measured_only(recording, timeline),
        )

    @property
    def peak_bytes(self) -> int:
        """The most that was allocated in the steps that count."""
        return self.peak.num_bytes

    @property
    def loss(self) -> float | None:
        """The loss of the last step; None unless measured."""
        return self.losses[-1] if self.losses else None

    @property
    def loss_tolerance(self) -> float:
        """By how much the losses of equal steps differed at most when they were run again."""
        return max((abs(one - other) for one, other in zip(self.losses, self.repeated_losses, strict=False)), default=0.0)

    @property
    def moved_to_host_bytes(self) -> int:
        """What waits on the host, where it is worth naming beside the peak: not the batch and the states of generators, which always do."""
        return self.host_bytes if self.host_bytes >= WORTH_NAMING * self.peak_bytes else 0

    def loss_against(self, other: Footprint) -> tuple[float, bool] | None:
        """Return this loss minus another run's, and whether that is more than reruns of either differ; None unless both are measured."""
        if self.loss is None or other.loss is None:
            return None
        gain = self.loss - other.loss
        return gain, abs(gain) > max(self.loss_tolerance, other.loss_tolerance)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; what was not measured is null."""
        return {
            "recording_id": self.recording_id,
            "provenance": str(self.provenance),
            "peak_allocated_bytes": self.peak_bytes,
            "peak_at": {
                "step": self.peak_step,
                "phase": str(self.peak.phase),
                "module": self.peak.module,
                "operator": self.peak.operator,
            },
            "categories_at_peak": {category.name: num_bytes for category, num_bytes in self.peak.categories.items()},
            "measured_only_bytes": dict(self.measured_only),
            "phase_peaks_bytes": {str(phase): level.num_bytes for phase, level in self.phases.items()},
            "peak_reserved_bytes": self.reserved_bytes,
            "host_peak_bytes": self.host_bytes or None,
            "cpu_seconds": None if self.cpu_seconds is None else self.cpu_seconds.median,
            "cpu_seconds_spread": None if self.cpu_seconds is None else self.cpu_seconds._asdict(),
            "wall_seconds": None if self.wall_seconds is None else self.wall_seconds.median,
            "estimated_step_seconds": self.estimated_step_seconds,
            "loss": self.loss,
            "loss_tolerance": self.loss_tolerance if self.losses else None,
            "notes": list(self.notes),
        }


def _level(recording: Recording, timeline: Timeline, event: int) -> Level:
    if not timeline.num_events:
        return Level(Phase.OTHER, 0, {})
    instant, categories = timeline.at(event), timeline.categories_at(event)
    assert sum(categories.values()) == instant.allocated_bytes, "categories must sum to what is allocated"
    return Level(instant.phase, instant.allocated_bytes, categories, *_place(recording, timeline.lane, event))


def _place(recording: Recording, lane: Lane, event: int) -> tuple[str | None, str | None]:
    """Return the module and the operator of an event; None where it tells neither, or is about another memory than ``lane``."""
    (row,) = recording.events.slice(event, 1).select(["device", "rank", "module", "operator"]).to_pylist()
    if (HOST if row["device"] is None else row["device"], row["rank"] or 0) != lane:
        return None, None
    return row["module"] or None, row["operator"] or None


def _alive(timeline: Timeline) -> dict[Holder, int]:
    blocks, rows = timeline.blocks, timeline.alive(timeline.peak_event)
    modules = np.array([*map(of_any_layer, blocks.module.names), ""], dtype=object)[blocks.module.codes[rows]]
    places = np.where(modules == "", blocks.operator[rows].texts(), modules)
    sums: Counter[Holder] = Counter()
    for category, place, num_bytes in zip(blocks.category[rows].tolist(), places.tolist(), blocks.bytes[rows].tolist(), strict=True):
        sums[Holder(CATEGORIES[category], place)] += num_bytes
    return dict(sums)


def _operators(timeline: Timeline) -> frozenset[str]:
    operator = timeline.blocks.operator[timeline.members]
    used = np.bincount(operator.codes + 1, minlength=1)[1:]  # the code of unknown ones is -1
    return frozenset(operator.names[code] for code in np.flatnonzero(used) if operator.names[code])


def _host_bytes(recording: Recording, timeline: Timeline) -> int:
    """Return the sum of the peaks of the host's memories beside a GPU's."""
    if timeline.lane.device < 0:
        return 0
    lanes: list[Lane] = [lane for lane in timeline.blocks.lanes() if lane.device < 0 and lane.rank == timeline.lane.rank]
    return sum(Timeline.of(recording, timeline.blocks, lane).peak_bytes for lane in lanes)


def _losses(recording: Recording) -> tuple[float, ...]:
    rows = recording.scalars.to_pylist()
    warmup_steps = recording.metadata.warmup_steps
    return tuple(row["value"] for row in rows if row["name"] == "loss" and row["step"] >= warmup_steps)

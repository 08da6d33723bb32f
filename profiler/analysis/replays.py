"""A recording's memory and a question about other settings or another card -> the answer, by replays of its requests.

The answers are the same whether they are found here or, of a long recording, in a worker (`profiler.jobs.replayer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any

from profiler.allocator.config import NEWEST, AllocatorConfig
from profiler.allocator.out_of_memory import Explanation, explain_out_of_memory
from profiler.allocator.trace import Trace
from profiler.allocator.what_if import Trial, compare, smallest_card
from profiler.analysis.columns import Array
from profiler.analysis.instants import failing_event
from profiler.analysis.recorded_failure import RecordedFailure, explain_recorded_failure
from profiler.analysis.reserved import ReservedSeries, lane_trace, simulated_reserved
from profiler.analysis.segment_map import SegmentMap, block_numbers, simulated_map
from profiler.analysis.timeline import Timeline
from profiler.recording import Recording

_COUNTED_STEPS = 65_536


class Topic(StrEnum):
    """What can be asked."""

    SERIES = "series"
    """Reserved over time; `Replays.series`."""
    TRIAL = "trial"
    """Peaks, counts, and where memory runs out; `Replays.trial`."""
    MAP = "map"
    """The segments right after an event; `Replays.map`."""
    SMALLEST = "smallest"
    """The smallest card; `Replays.smallest`."""
    EXPLANATION = "explanation"
    """Why memory runs out; `Replays.explanation`."""
    RECORDED_FAILURE = "recorded_failure"
    """Why it ran out in the recorded run itself; `Replays.recorded_failure`."""

    @property
    def num_replays(self) -> int:
        """About how many replays the answer takes."""
        return {Topic.SMALLEST: 14, Topic.EXPLANATION: 24, Topic.RECORDED_FAILURE: 24}.get(self, 1)


@dataclass(frozen=True)
class Question:
    """What would have been, with these settings on this card."""

    topic: Topic
    setting: str = ""
    """As users write it; empty for torch's defaults."""
    torch_version: tuple[int, int] = NEWEST
    capacity_bytes: int | None = None
    """What the allocator may reserve; None: no limit."""
    event: int = 0
    """The instant of a map."""

    @property
    def config(self) -> AllocatorConfig:
        """The settings.

        Raises:
            SpecError: the text names none that this torch version knows.
        """
        return AllocatorConfig.parse(self.setting, self.torch_version)


@dataclass(frozen=True)
class Tried:
    """One setting on one card."""

    trial: Trial
    failure_event: int | None
    """The event at which memory runs out; None where it does not."""


@dataclass(frozen=True)
class Explained:
    """Why memory runs out, and when."""

    explanation: Explanation
    event: int


class Replays:
    """Answers questions about one memory of a recording.

    Args:
        recording: whose requests are replayed.
        timeline: of the memory.
        count: is told how many more steps of the program were replayed, from time to time.
    """

    def __init__(self, recording: Recording, timeline: Timeline, count: Callable[[int], None] | None = None) -> None:
        self._recording = recording
        self._timeline = timeline
        self._count = count
        self._trace = self._counted(lane_trace(recording, timeline.lane))
        self._numbers: Array = block_numbers(recording, timeline)

    @property
    def num_steps(self) -> int:
        """Steps of one replay, at most."""
        return len(self._trace)

    def answer(self, question: Question) -> Any:
        """Return the answer, whose type the question's topic says.

        Raises:
            SpecError: the settings cannot be replayed.
        """
        found: Callable[[Question], Any] = getattr(self, question.topic.value)
        return found(question)

    def series(self, question: Question) -> ReservedSeries:
        """Return what would have been reserved over time, in as many points as a chart shows."""
        return simulated_reserved(self._timeline, self._trace, question.config, question.setting, question.capacity_bytes).thinned()

    def trial(self, question: Question) -> Tried:
        """Return the numbers of one setting on one card."""
        trial = compare(self._trace, {question.setting: question.config}, [question.capacity_bytes])[0]
        return Tried(trial, self._event(trial.oom.row) if trial.oom else None)

    def map(self, question: Question) -> SegmentMap:
        """Return the segments that would have been held right after the question's event."""
        return simulated_map(
            self._timeline,
            self._numbers,
            self._trace,
            question.config,
            question.event,
            setting=question.setting,
            capacity_bytes=question.capacity_bytes,
        )

    def smallest(self, question: Question) -> int:
        """Return the bytes that the allocator must at least be able to reserve, whatever the question's card."""
        return smallest_card(self._trace, question.config)

    def explanation(self, question: Question) -> Explained | None:
        """Return why memory runs out on the question's card; None where it does not."""
        assert question.capacity_bytes is not None, "without a limit memory never runs out"
        found = explain_out_of_memory(self._trace, question.config, question.capacity_bytes)
        return Explained(found, self._event(found.row)) if found else None

    def recorded_failure(self, _: Question) -> RecordedFailure | None:
        """Return why memory ran out in the recorded run itself, under its own settings; None where it did not."""
        return explain_recorded_failure(self._recording, self._timeline, self._counted)

    def _counted(self, trace: Trace) -> Trace:
        return (
            trace if self._count is None else CountedTrace(trace.kind, trace.key, trace.bytes, trace.stream, trace.source_row, self._count)
        )

    def _event(self, row: int) -> int:
        return max(failing_event(self._trace, row), 0)


@dataclass(frozen=True, eq=False)
class CountedTrace(Trace):
    """A trace that tells how far each replay of it is."""

    count: Callable[[int], None]
    """Is told how many more steps were replayed, from time to time."""

    def steps(self, until_row: int | None = None) -> Iterator[tuple[int, int, int, int, int]]:
        """Return the steps, as `Trace.steps`."""
        steps = super().steps(until_row)
        while part := tuple(islice(steps, _COUNTED_STEPS)):
            yield from part
            self.count(len(part))

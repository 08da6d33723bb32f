"""Annotations and stacks -> the phase of each event, the intervals of the phases, and the steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from profiler.formats.matching import StackMatcher
from profiler.formats.rules import Rules
from profiler.formats.snapshot import Annotation
from profiler.recording import Phase

Array = np.ndarray[Any, Any]

PHASES = tuple(Phase)
CODES = {phase: code for code, phase in enumerate(PHASES)}
UNDECIDED = -1
_STEP = re.compile(r"^ProfilerStep#(\d+)$")
_MAX_STEPS = 1_000_000


class Interval(NamedTuple):
    """A named stretch of time, microseconds of the snapshot's clock."""

    name: str
    start_us: int
    end_us: int


@dataclass(frozen=True, eq=False)
class EventPhases:
    """What ran at each row of a device."""

    phase: Array
    """Codes of `PHASES`."""
    run: Array
    """Numbers the stretches of rows in one phase, within one step."""
    step: Array
    """-1 before the first."""


def intervals_of(annotations: Sequence[Annotation]) -> list[Interval]:
    """Return the intervals that annotations open and close; one that is still open is left out.

    Equal names nest as brackets do.
    """
    open_at: dict[tuple[str, int], list[int]] = {}
    intervals = []
    for annotation in sorted(annotations, key=_when):
        starts = open_at.setdefault((annotation.name, annotation.device), [])
        if annotation.starts:
            starts.append(annotation.time_us)
        elif starts:
            intervals.append(Interval(annotation.name, starts.pop(), annotation.time_us))
    return sorted(intervals, key=_start)


def stack_phases(stacks: StackMatcher, rules: Rules) -> Array:
    """Return for each stack the phase that a rule gives it; one more at the end stands for no stack."""
    phases = np.full(len(stacks.python), UNDECIDED, np.int8)
    for rule in reversed(rules.phases):
        if rule.frame is not None:
            phases[stacks.matches(rule.frame)] = CODES[rule.phase]
        elif rule.no_python_frame and stacks.python.any():
            phases[~stacks.python] = CODES[rule.phase]
    return phases


def event_phases(
    stack: Array, time_us: Array | None, by_stack: Array, scripted: Array, intervals: list[Interval], rules: Rules, *, num_older: int = 0
) -> EventPhases:
    """Return what ran at each row.

    Args:
        stack: the rows' stacks; -1 for none.
        time_us: the rows' times; None where they are not known.
        by_stack: what `stack_phases` gave.
        scripted: `StackMatcher.python`.
        intervals: what `intervals_of` gave.
        rules: the rules.
        num_older: so many rows at the beginning are of blocks older than the recording; nothing ran there.
    """
    if num_older:
        clock = None if time_us is None else time_us[num_older:]
        later = event_phases(stack[num_older:], clock, by_stack, scripted, intervals, rules)
        older = np.zeros(num_older, np.int32)
        phase = np.concatenate([older + CODES[Phase.OTHER], later.phase]).astype(np.int8)
        return EventPhases(phase, np.concatenate([older, later.run + 1]), np.concatenate([older - 1, later.step]))
    phase = by_stack[stack].copy()
    if time_us is not None:
        for rule in reversed([rule for rule in rules.phases if rule.annotation is not None]):
            for interval in intervals:
                if rule.annotation is not None and rule.annotation.search(interval.name):
                    low, high = np.searchsorted(time_us, [interval.start_us, interval.end_us + 1])
                    phase[low:high] = CODES[rule.phase]
    phase = _filled(phase, scripted[stack])
    step = _steps(phase, time_us, intervals)
    begins = np.ones(len(phase), bool)
    begins[1:] = (phase[1:] != phase[:-1]) | (step[1:] != step[:-1])
    return EventPhases(phase, np.cumsum(begins) - 1, step)


def _filled(phase: Array, scripted: Array) -> Array:
    """Return the phases with the undecided rows filled in: between two rows of one phase they are of it.

    What runs between a forward and its backward is the loss, which counts as forward. What a script does between two calls of a model is
    no part of either. The rest is other.
    """
    num_rows = len(phase)
    places = np.where(phase != UNDECIDED, np.arange(num_rows), -1)
    before = np.maximum.accumulate(places) if num_rows else places
    after = np.minimum.accumulate(np.where(places < 0, num_rows, places)[::-1])[::-1] if num_rows else places
    padded = np.append(phase, UNDECIDED)
    left = np.where(before >= 0, padded[before], UNDECIDED)
    right = padded[after]
    loss = (left == CODES[Phase.FORWARD]) & (right == CODES[Phase.BACKWARD])
    between_calls = (left == CODES[Phase.FORWARD]) & (right == left) & scripted
    known = ((left == right) & ~between_calls) | loss
    return np.where(phase != UNDECIDED, phase, np.where(known & (left != UNDECIDED), left, CODES[Phase.OTHER])).astype(np.int8)


def _steps(phase: Array, time_us: Array | None, intervals: list[Interval]) -> Array:
    """Return each row's step: as a profiler counted them, else from one optimizer step to the next; before the first forward it is -1."""
    counted = [interval for interval in intervals if _STEP.match(interval.name)][:_MAX_STEPS]
    if counted and time_us is not None:
        number = np.searchsorted([interval.start_us for interval in counted], time_us, side="right") - 1
        return number.astype(np.int32)
    updating = phase == CODES[Phase.OPTIMIZER]
    ended = np.zeros(len(phase), bool)
    ended[1:] = updating[:-1] & ~updating[1:]
    step = np.cumsum(ended).astype(np.int32)
    building = np.isin(phase, [CODES[Phase.BUILD], CODES[Phase.DATA], CODES[Phase.OTHER]])
    if len(phase) and not building.all():
        step[: int(np.argmin(building))] = -1
    # What follows the last update without computing anything new is its end, not one more step.
    if len(phase) and updating.any():
        last = len(phase) - int(np.argmax(updating[::-1]))
        if not np.isin(phase[last:], [CODES[Phase.FORWARD], CODES[Phase.BACKWARD]]).any():
            step[last:] = step[last - 1]
    return step


def _when(annotation: Annotation) -> tuple[int, bool]:
    return annotation.time_us, annotation.starts


def _start(interval: Interval) -> tuple[int, int]:
    return interval.start_us, -interval.end_us

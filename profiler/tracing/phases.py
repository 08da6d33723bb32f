"""Which phase of a step each moment belongs to, where the program said so, and where torch's own events tell."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from profiler.recording import Phase
from profiler.tracing.raw import Interval, RawWindow

_TORCH_PHASES = {"Optimizer.step#": Phase.OPTIMIZER, "Optimizer.zero_grad#": Phase.ZERO_GRAD}
_PHASES_OF_KINDS = {"module": Phase.FORWARD, "node": Phase.BACKWARD}
FORWARD_PHASES = frozenset({Phase.FORWARD, Phase.PREFILL, Phase.DECODE})


def phase_intervals(raw: RawWindow) -> list[Interval]:
    """Return the phases of a window in the order of time, not overlapping; marks of the program outrank what is derived.

    Derived: a model's outermost call is forward, autograd's nodes are backward, torch's own marks show the optimizer. The time between a
    forward and the backward that follows belongs to the forward, since the loss is made there.
    """
    marked = [interval for interval in raw.intervals if interval.kind == "phase"]
    parts = outermost(interval for interval in raw.intervals if _derived_phase(interval))
    derived = [_part(part) for part in parts if not any(_overlap(part, mark) for mark in marked)]
    phases = _joined(sorted([*marked, *derived], key=lambda interval: interval.start_ns))
    return [phase._replace(kind="phase") for phase in phases]


def _overlap(first: Interval, second: Interval) -> bool:
    return first.start_ns < second.end_ns and second.start_ns < first.end_ns


def outermost(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the intervals, sorted by start, that no earlier one contains."""
    result: list[Interval] = []
    for interval in intervals:
        if not result or interval.start_ns >= result[-1].end_ns:
            result.append(interval)
    return result


def _joined(parts: list[Interval]) -> list[Interval]:
    """Return the parts with neighbours of one derived phase joined, and a derived forward reaching to the backward that follows."""
    joined: list[Interval] = []
    for part in parts:
        last = joined[-1] if joined else None
        if last and last.kind == part.kind == "derived" and last.name == part.name:
            joined[-1] = last._replace(end_ns=part.end_ns)
            continue
        if last and last.kind == "derived" and last.name == Phase.FORWARD and part.name == Phase.BACKWARD:
            joined[-1] = last._replace(end_ns=part.start_ns)
        joined.append(part)
    return joined


def _part(interval: Interval) -> Interval:
    return interval._replace(kind="derived", name=_derived_phase(interval) or "")


def _derived_phase(interval: Interval) -> Phase | None:
    if interval.kind == "torch":
        return next((phase for prefix, phase in _TORCH_PHASES.items() if interval.name.startswith(prefix)), None)
    return _PHASES_OF_KINDS.get(interval.kind)


def update_intervals(raw: RawWindow, phases: list[Interval]) -> list[Interval]:
    """Return the optimizers' steps that run within another phase, as in backward, parameter by parameter."""
    others = [phase for phase in phases if phase.name != Phase.OPTIMIZER]
    steps = [_part(interval) for interval in raw.intervals if interval.kind == "torch" and _derived_phase(interval) is Phase.OPTIMIZER]
    return [step for step in outermost(steps) if any(_overlap(step, phase) for phase in others)]


def output_intervals(raw: RawWindow, phases: list[Interval], output_layers: frozenset[str], leaves: frozenset[str]) -> list[Interval]:
    """Return the stretches in which logits and loss are made: from the output layer's call to the end of that forward.

    Args:
        raw: the window.
        phases: its phases.
        output_layers: paths of layers that models name as their output layer.
        leaves: paths of modules that hold parameters of their own; where no output layer is named, the last of them that ran is it.
    """
    calls = [interval for interval in raw.intervals if interval.kind == "module"]
    starts = [call.start_ns for call in outermost(calls)]
    result = []
    for phase in phases:
        if phase.name not in FORWARD_PHASES:
            continue
        for begin, end in _pieces(phase, starts):
            inside = [call for call in calls if begin <= call.start_ns < end]
            layers = [call for call in inside if call.name in output_layers] or [call for call in inside if call.name in leaves][-1:]
            if layers:
                result.append(Interval("output", phase.name, layers[0].start_ns, end))
    return result


def _pieces(phase: Interval, starts: list[int]) -> list[tuple[int, int]]:
    """Cut a phase at the outermost calls in it, since each call of a model makes outputs of its own."""
    cuts = [start for start in starts if phase.start_ns <= start < phase.end_ns]
    return list(pairwise([*cuts, phase.end_ns]))

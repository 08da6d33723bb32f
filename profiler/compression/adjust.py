"""An experiment -> those beside it: more of one technique, less of it, or one more where it belongs. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from profiler.compression.base import Kind
from profiler.compression.experiment import Experiment
from profiler.compression.target import Goal
from profiler.errors import SpecError
from profiler.optimizations.base import Parameter, ParameterKind, Value
from profiler.spec import Toggle

_SHARE_STEP = 0.1
_CODER, _TRAINING = Toggle("ans"), Toggle("fine-tune")
Stages = tuple[Toggle, ...]


def neighbours(experiment: Experiment, goal: Goal) -> list[Experiment]:
    """Return what to try next: each differs in one amount or by one technique, and is possible.

    Args:
        experiment: what was measured.
        goal: a coder is added only where the file is to be small.
    """
    found: dict[Stages, Experiment] = {}
    for stages in (*_other_amounts(experiment), *_one_more(experiment, goal)):
        try:
            made = replace(experiment, stages=stages, by_layer=False)
        except SpecError:  # the order that it would have cannot be
            continue
        found.setdefault(made.stages, made)
    found.pop(experiment.stages, None)
    return list(found.values())


def _other_amounts(experiment: Experiment) -> Iterator[Stages]:
    stages = experiment.stages
    for index, (stage, item) in enumerate(zip(stages, experiment.techniques, strict=True)):
        parameter = next((one for one in item.parameters if one.name == item.amount), None)
        if parameter is None or item.kind is Kind.TRAINING:
            continue
        for value in _around(parameter, item.read_options(dict(stage.options))[parameter.name]):
            options = dict(stage.options) | {parameter.name: parameter.write(value)}
            yield (*stages[:index], Toggle(stage.name, tuple(sorted(options.items()))), *stages[index + 1 :])


def _one_more(experiment: Experiment, goal: Goal) -> Iterator[Stages]:
    stages, kinds = experiment.stages, [item.kind for item in experiment.techniques]
    if Kind.TRAINING not in kinds:
        for index, kind in enumerate(kinds):
            if kind in (Kind.PRUNING, Kind.SMALLER_MODEL) and not experiment.techniques[index].first:
                yield (*stages[: index + 1], _TRAINING, *stages[index + 1 :])
    if goal is Goal.DISK and Kind.CODING not in kinds:
        yield (*stages, _CODER)


def _around(parameter: Parameter, value: Value) -> list[Value]:
    """Return the values next to one: less first, within the parameter's bounds."""
    if parameter.kind is ParameterKind.CHOICE:
        place = parameter.choices.index(str(value))
        return [parameter.choices[index] for index in (place - 1, place + 1) if 0 <= index < len(parameter.choices)]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    low, high = (float("-inf") if parameter.low is None else parameter.low), (float("inf") if parameter.high is None else parameter.high)
    if parameter.kind is ParameterKind.INTEGER:
        step = max(1, int(value) // 4)
        return [near for near in (int(value) - step, int(value) + step) if low <= near <= high]
    return [near for near in (round(value - _SHARE_STEP, 6), round(value + _SHARE_STEP, 6)) if low <= near <= high]

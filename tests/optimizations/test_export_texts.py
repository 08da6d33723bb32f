"""Every optimization in the words of every tool: the texts can be read, and each option is said or named as missing."""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Iterator

from profiler.errors import SpecError
from profiler.optimizations.base import Parameter, ParameterKind
from profiler.optimizations.export import export_job
from profiler.optimizations.registry import REGISTRY, validate
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind

PARSE = {"python": ast.parse, "json": json.loads, "toml": tomllib.loads}


def job(toggle: str) -> Job:
    """Return a job with a toggle, of the first kind of workload and on the first device where it is possible."""
    for device in ("cpu", "rtx-4090"):
        for kind in (WorkloadKind.TRAIN, WorkloadKind.DECODE):
            asked = Job(
                model=Model(name="tiny-llama"),
                workload=Workload(kind=kind, batch=4, seq=32),
                device=device,
                toggles=(Toggle.parse(toggle),),
            )
            try:
                validate(asked)
            except SpecError:
                continue
            return asked
    raise AssertionError(f"{toggle} can be switched on in no workload")


def other_values(parameter: Parameter) -> Iterator[str]:
    """Yield up to three values that are not the default one."""
    if parameter.name == "teacher":  # has the student's vocabulary
        values: list[object] = ["tiny-mistral"]
    elif parameter.kind is ParameterKind.CHOICE:
        values = [value for value in parameter.choices if value != parameter.default][:3]
    elif parameter.kind is ParameterKind.BOOLEAN:
        values = [not parameter.default]
    elif parameter.kind is ParameterKind.INTEGER:
        values = [int(parameter.default) * 2 or 2]
    else:
        values = [float(parameter.default) / 2 or 0.25]
    yield from (parameter.write(value) for value in values)  # type: ignore[arg-type]


def options() -> Iterator[tuple[str, str]]:
    for name, item in REGISTRY.items():
        for parameter in item.parameters:
            for value in other_values(parameter):
                yield name, f"{parameter.name}={value}"


def test_every_text_of_every_optimization_can_be_read() -> None:
    toggles = [*REGISTRY, *(f"{name}:{option}" for name, option in options())]
    for toggle in toggles:
        for program in export_job(job(toggle)):
            if program.text:
                PARSE[program.language](program.text)
    assert len(toggles) > 100

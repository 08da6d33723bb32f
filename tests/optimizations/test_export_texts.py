"""Every optimization in the words of every tool: the texts can be read, and each option is said or named as missing."""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from profiler.errors import SpecError
from profiler.optimizations.base import Parameter, ParameterKind
from profiler.optimizations.export import Program, export_job
from profiler.optimizations.registry import REGISTRY, validate
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind

PARSE = {"python": ast.parse, "json": json.loads, "toml": tomllib.loads}


def job(toggle: str) -> Job:
    """Return a job with a toggle, of the first model, device and kind of workload where it is possible."""
    for model, device, kind in product(("tiny-llama", "llama-2-7b"), ("cpu", "rtx-4090"), (WorkloadKind.TRAIN, WorkloadKind.DECODE)):
        workload = Workload(kind=kind, batch=4, seq=32)
        asked = Job(model=Model(name=model), workload=workload, device=device, toggles=(Toggle.parse(toggle),))
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


def body(program: Program) -> str:
    """Return what a text does: without comments, and without the first string of a script, which names the toggles."""
    if program.language == "python" and program.text:
        return ast.unparse(ast.parse(program.text).body[1:])  # type: ignore[arg-type]
    return "\n".join(line for line in program.text.splitlines() if not line.startswith("#"))


def test_every_option_is_said_or_named_as_missing() -> None:
    silent = []
    for name, option in options():
        plain, asked = export_job(job(name)), export_job(job(f"{name}:{option}"))
        for before, after in zip(plain, asked, strict=True):
            is_said = any(sentence.startswith((f"{name}: ", f"{name}:{option}:", "zero_grad: ")) for sentence in after.missing)
            is_said |= option == "implementation=for-loop" and "foreach=False" in after.text  # which auto is on a CPU
            if after.text and not is_said and body(before) == body(after) and before.missing == after.missing:
                silent.append(f"{after.tool} {name}:{option}")
    assert silent == []


def by_tool(*toggles: str) -> dict[str, Program]:
    first = job(toggles[0])
    return {program.tool: program for program in export_job(replace(first, toggles=tuple(map(Toggle.parse, toggles))))}


@pytest.mark.parametrize("tool", ["DeepSpeed", "torchtitan", "Hugging Face Trainer"])
@pytest.mark.parametrize("toggle", ["keep-gradients", "zero-grad:place=before_backward"])
def test_where_gradients_are_dropped_is_named(tool: str, toggle: str) -> None:
    assert any(sentence.startswith("zero_grad: ") for sentence in by_tool(toggle)[tool].missing)
    assert not any(sentence.startswith("zero_grad: ") for sentence in by_tool("sdpa")[tool].missing)


@pytest.mark.parametrize(
    ("tool", "option"),
    [
        ("DeepSpeed", "fsdp2:reshard=false"),
        ("DeepSpeed", "adamw:implementation=for-loop"),
        ("DeepSpeed", "offload-optimizer:gradients=false"),
        ("DeepSpeed", "muon:rounds=7"),
        ("torchtitan", "fsdp2:compute=bfloat16"),
        ("Hugging Face Trainer", "adamw:implementation=for-loop"),
    ],
)
def test_an_option_that_a_tool_decides_itself_is_named(tool: str, option: str) -> None:
    assert f"{option}: {tool} decides this itself." in by_tool(option)[tool].missing


def test_another_architecture_is_named_by_tools_that_name_no_model() -> None:
    for tool in ("DeepSpeed", "torchtitan"):
        assert "tiny-llama, kv_heads=1" in by_tool("grouped-query:kv_heads=1")[tool].missing[0]


def test_torchtitan_is_told_the_operators_only_where_it_saves_the_same() -> None:
    assert 'selective_ac_option = "op"' in by_tool("selective-checkpointing:save=every-second-matmul")["torchtitan"].text
    for save in ("matmuls", "attention"):
        program = by_tool(f"selective-checkpointing:save={save}")["torchtitan"]
        assert "activation_checkpoint" not in program.text
        assert any(sentence.startswith("selective-checkpointing: ") for sentence in program.missing)


def test_a_copied_text_says_itself_what_it_cannot() -> None:
    for program in by_tool("bottleneck-adapters", "lion").values():
        assert program.missing
        if program.language != "json":
            assert program.text.splitlines()[: len(program.missing)] == [f"# Not said: {sentence}" for sentence in program.missing]


def test_a_strangers_name_stays_in_its_comment() -> None:
    config = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = Model.from_config("x\nexecuted = 1\r\x0c[executed]", {**config, "vocab_size": 50})
    programs = {program.language: program.text for program in export_job(replace(job("sdpa"), model=model))}
    assert "executed" in programs["toml"]
    assert "executed" not in tomllib.loads(programs["toml"])
    assert "executed" not in compile(programs["python"], "train.py", "exec").co_names

"""Toggles as users write them -> one canonical job, or one sentence on what is wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import SpecError
from profiler.models.catalogue import CATALOGUE
from profiler.optimizations.base import Optimization, Parameter, ParameterKind
from profiler.optimizations.optimizers import Sgd, TorchOptimizer
from profiler.optimizations.precision import BFloat16, Precision
from profiler.optimizations.registry import REGISTRY, chosen, families, optimization, setup_for, validate
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind

OPTIMIZERS = [name for name, item in REGISTRY.items() if isinstance(item, TorchOptimizer)]


def job(*toggles: str, **workload: Any) -> Job:
    workload = {"batch": 1, "seq": 8} | workload
    return Job(model=Model(name="tiny-gpt2"), workload=Workload(**workload), toggles=tuple(map(Toggle.parse, toggles)))


def texts(job: Job) -> list[str]:
    return [str(toggle) for toggle in job.toggles]


@pytest.mark.parametrize("item", REGISTRY.values(), ids=lambda item: item.name)
def test_every_optimization_says_what_a_page_shows(item: Optimization) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", item.name)
    assert item.label
    assert item.formula
    assert item.source
    assert item.engines
    assert item.explanation.endswith(".")
    assert "!" not in item.explanation
    assert all(parameter.help.endswith(".") for parameter in item.parameters)


def test_names_and_aliases_are_used_once() -> None:
    words = [word for item in REGISTRY.values() for word in (item.name, *item.aliases)]
    assert len(words) == len(set(words))


def test_the_default_of_a_family_is_one_of_it() -> None:
    assert {family.name: family.default for family in families() if family.default} == {"precision": "float32", "optimizer": "adamw"}
    for family, items in families().items():
        assert family.default in {None, *(item.name for item in items)}


def test_a_job_without_toggles_says_which_defaults_it_runs_with() -> None:
    assert texts(validate(job())) == ["adamw", "float32"]
    assert texts(validate(job(kind="prefill"))) == ["float32"]


@pytest.mark.parametrize("text", ["bf16", "BF16", "bfloat16", "BFloat16"])
def test_an_alias_is_the_same_job_as_the_name(text: str) -> None:
    assert validate(job(text)) == validate(job("bfloat16", "adamw"))
    assert validate(job(text)).id == validate(job("bfloat16")).id


def test_the_same_toggle_twice_is_one_toggle() -> None:
    assert texts(validate(job("bf16", "bfloat16"))) == ["adamw", "bfloat16"]


def test_an_option_at_its_default_is_the_same_job_as_none() -> None:
    assert texts(validate(job("sgd:momentum=0", "fp32"))) == ["float32", "sgd"]
    assert texts(validate(job("sgd:momentum=9e-1,lr=0.01"))) == ["float32", "sgd:momentum=0.9"]


def test_a_model_in_capitals_is_the_same_job() -> None:
    assert validate(Job(model=Model(name="GPT2"))) == validate(Job(model=Model(name="gpt2")))


def test_validating_again_changes_nothing() -> None:
    for name, item in REGISTRY.items():
        kind = min(item.family.workloads, key=list(WorkloadKind).index)
        wanted = replace(job(name, kind=kind, batch=2), model=Model(name="tiny-llama"))
        on_a_gpu = replace(wanted, device="rtx-4090", model=Model(name="tiny-gpt2"))
        valid = validate(wanted if item.refusal(wanted) is None else on_a_gpu)
        assert validate(valid) == valid
        assert Job.from_json(valid.to_json()) == valid


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (job("adamm"), "Unknown optimization 'adamm'. Did you mean 'adam'?"),
        (job("zzzzzz"), "Unknown optimization 'zzzzzz'. There are float32, bfloat16,"),
        (job("sgd:momentun=0.9"), "Unknown option of sgd 'momentun'. Did you mean 'momentum'? It has lr, momentum, implementation."),
        (job("bf16:x=1"), "Unknown option of bfloat16 'x'. It has no options."),
        (job("sgd:momentum=2"), "momentum=2 is not possible. Use a number from 0 to 1."),
        (job("sgd:momentum=nan"), "momentum=nan is not possible."),
        (job("sgd:momentum=much"), "momentum=much is not possible."),
        (job("adamw:implementation=fast"), "Unknown implementation 'fast'."),
        (job("rmsprop:centered=1"), "centered=1 is not possible. Use true or false."),
        (job("adam", "sgd"), "adam and sgd are both switched on, but a run has one optimizer. Switch one off."),
        (job("sgd", "sgd:lr=0.5"), "sgd and sgd are both switched on, but a run has one optimizer."),
        (
            job("micro-batches", "grad-accumulation:count=4", batch=4),
            "micro-batches is switched on twice, with different options. Keep one.",
        ),
        (
            job("optimizer-in-backward", "grad-accumulation", batch=2),
            "optimizer-in-backward updates with the gradient of each backward, and micro-batches add up those of several.",
        ),
        (job("adamw", kind="prefill"), "adamw has no effect in prefill: optimizer is for train. Switch it off."),
        (job(seq=5000), "seq=5,000; tiny-gpt2 has 1,024 positions."),
        (Job(model=Model(name="gpt3")), "Unknown model 'gpt3'. Did you mean 'gpt2'?"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(wanted: Job, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        validate(wanted)


@given(st.floats(0, 100, allow_nan=False))
def test_a_number_survives_being_written_and_read(value: float) -> None:
    parameter = Sgd.parameters[0]
    assert parameter.parse(parameter.write(value)) == value


def test_a_whole_number_is_read_within_its_bounds() -> None:
    parameter = Parameter(name="rank", kind=ParameterKind.INTEGER, default=8, low=1, high=512, help="Rank.")
    assert parameter.parse("16") == 16
    assert parameter.write(16) == "16"
    for text in ("0", "513", "1.5", "x"):
        with pytest.raises(SpecError, match=f"rank={re.escape(text)} is not possible. Use a whole number from 1 to 512"):
            parameter.parse(text)


def test_chosen_gives_the_optimization_with_all_of_its_options() -> None:
    item, options = chosen(job("sgd:momentum=0.5"), TorchOptimizer)
    assert isinstance(item, Sgd)
    assert options == {"lr": 0.01, "momentum": 0.5, "implementation": "auto"}
    assert isinstance(chosen(job("bf16"), Precision)[0], BFloat16)


@pytest.mark.parametrize(("text", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_precision_is_the_dtype_of_the_model_and_its_itemsize_that_of_torch(text: str, dtype: torch.dtype) -> None:
    assert setup_for(job(text)).dtype is dtype
    item = optimization(text)
    assert isinstance(item, Precision)
    assert item.itemsize == dtype.itemsize


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("device", "foreach"), [("cpu", False), ("cuda", True), ("cuda:1", True), ("rtx-4090", True)])
def test_an_optimizer_left_to_itself_is_what_torch_uses_on_that_device(name: str, device: str, foreach: bool) -> None:
    setup = setup_for(Job(model=Model(name="tiny-gpt2"), device=device, toggles=(Toggle(name),)))
    assert setup.make_optimizer is not None
    optimizer = setup.make_optimizer([torch.nn.Parameter(torch.zeros(2))])
    assert optimizer.defaults["foreach"] is foreach


def test_an_implementation_that_is_asked_for_is_used() -> None:
    for text, foreach, fused in (("for-loop", False, None), ("foreach", True, None), ("fused", None, True)):
        setup = setup_for(job(f"adamw:implementation={text}"))
        assert setup.make_optimizer is not None
        defaults = setup.make_optimizer([torch.nn.Parameter(torch.zeros(2))]).defaults
        assert (defaults["foreach"], defaults["fused"]) == (foreach, fused)


@pytest.mark.parametrize("kind", WorkloadKind)
def test_every_catalogue_model_validates_or_says_why_not(kind: WorkloadKind) -> None:
    for name, item in CATALOGUE.items():
        wanted = Job(model=Model(name=name), workload=Workload(kind=kind))
        if kind is WorkloadKind.DECODE and item.head == "masked-lm":
            with pytest.raises(SpecError, match="cannot decode"):
                validate(wanted)
        else:
            assert validate(wanted).model.name == name

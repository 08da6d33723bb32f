"""What toggles apply to and do not go with is declared: every declaration is refused with its reason, and nothing else between two is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import combinations, permutations

import pytest

from profiler.cli import main
from profiler.errors import SpecError
from profiler.models.config import Head
from profiler.optimizations.registry import REGISTRY, conflicts_of, limits_of, setup_for, validate
from profiler.optimizations.scope import Conflict, Scope, any_of
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind

GPU = "rtx-4090"
MODELS = ("tiny-llama", "tiny-bert", "tiny-gpt2", "tiny-t5")
CONFLICTING = {"amp": "amp:dtype=float16"}
"""With what options a toggle conflicts, where not with its own."""
FITTING = {
    "batch-size": ("batch-size:sequences=4",),
    "flash": ("flash", "bfloat16"),
    "efficient": ("efficient", "grouped-query:kv_heads=8"),
}
"""How a toggle is switched on so that the job itself can have it."""
ONE_OF_A_KIND = re.compile("but a run has one|is switched on twice")
DECLARED = [(name, other, conflict) for name, item in REGISTRY.items() for conflict in item.conflicts for other in conflict.others]


def job(*toggles: str, model: str = "tiny-llama", kind: WorkloadKind = WorkloadKind.TRAIN, device: str = "cpu") -> Job:
    workload = Workload(kind=kind, batch=4, seq=16, steps=1, new_tokens=3)
    return Job(model=Model(name=model), workload=workload, device=device, toggles=tuple(map(Toggle.parse, toggles)))


def reason(wanted: Job) -> str | None:
    """Return why a job is refused, before it runs; None where it is not."""
    try:
        setup_for(wanted)
    except SpecError as error:
        return str(error)
    return None


def known(text: str, others: tuple[str, ...]) -> list[Conflict]:
    """Return the declared conflicts of a toggle with any of others."""
    names = {Toggle.parse(other).name for other in others}
    return [conflict for conflict, found in conflicts_of(Toggle.parse(text).name).items() if names & set(found)]


def possible(name: str, other: str, conflict: Conflict) -> Job:
    """Return a job in which the two toggles matter, without them."""
    kinds = REGISTRY[name].family.workloads & REGISTRY[other].family.workloads & conflict.workloads
    on_cpu = conflict.on_cpu and REGISTRY[name].applies_to.on_cpu and REGISTRY[other].applies_to.on_cpu
    return job(kind=min(kinds), device="cpu" if on_cpu else GPU)


@pytest.mark.parametrize(("name", "other", "conflict"), DECLARED, ids=[f"{name} {other}" for name, other, _ in DECLARED])
def test_every_declared_conflict_is_refused_with_its_reason_in_either_order(name: str, other: str, conflict: Conflict) -> None:
    for pair in permutations((name, other)):
        wanted = replace(possible(name, other, conflict), toggles=tuple(Toggle.parse(CONFLICTING.get(part, part)) for part in pair))
        with pytest.raises(SpecError, match=re.escape(f"{name} and {other} do not go together: {conflict.why}. ")):
            validate(wanted)


@pytest.mark.parametrize(("name", "other", "conflict"), [found for found in DECLARED if found[2].unless])
def test_what_resolves_a_conflict_does(name: str, other: str, conflict: Conflict) -> None:
    for text in conflict.unless:
        toggles = {toggle.name: toggle for toggle in (*map(Toggle, (name, other)), Toggle.parse(text))}
        assert reason(replace(possible(name, other, conflict), toggles=tuple(toggles.values()))) is None


@pytest.mark.parametrize("kind", WorkloadKind)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_no_two_toggles_are_refused_that_declare_no_conflict(model: str, kind: WorkloadKind, device: str) -> None:
    """With their default options; two of one exclusive family are declared by it."""
    ways = {name: (name,) for name in REGISTRY} | FITTING
    alone = {name: job(*way, model=model, kind=kind, device=device) for name, way in ways.items()}
    for one, other in combinations([name for name, wanted in alone.items() if reason(wanted) is None], 2):
        refused = reason(replace(alone[one], toggles=tuple({*alone[one].toggles, *alone[other].toggles})))
        if refused is None or ONE_OF_A_KIND.search(refused):
            continue
        assert any(why.why in refused for part in ways[one] for why in known(part, ways[other])), (one, other, refused)


def test_a_conflict_is_declared_once_and_shown_on_both_sides() -> None:
    pairs = [frozenset((name, other)) for name, other, _ in DECLARED]
    assert len(pairs) == len(set(pairs))
    for name, other, conflict in DECLARED:
        assert other in conflicts_of(name)[conflict]
        assert name in conflicts_of(other)[conflict]
    assert limits_of("eager")[1] == (
        "Not with selective-checkpointing, unless selective-checkpointing:save=matmuls or selective-checkpointing:save=every-second-matmul "
        "is on: selective-checkpointing keeps the results of fused attention, and the other has none."
    )


def test_what_the_workload_says_without_a_toggle_conflicts_as_the_toggle_does() -> None:
    plain = job("optimizer-in-backward")
    for workload in (replace(plain.workload, micro_batches=2), replace(plain.workload, set_to_none=False)):
        with pytest.raises(SpecError, match="and optimizer-in-backward do not go together"):
            validate(replace(plain, workload=workload))
    assert validate(job("optimizer-in-backward", "micro-batches:count=1"))


@pytest.mark.parametrize("name", REGISTRY)
def test_what_a_toggle_applies_to_is_said_and_holds(name: str) -> None:
    scope = REGISTRY[name].applies_to
    kind = min(REGISTRY[name].family.workloads)
    device = "cpu" if scope.on_cpu else GPU
    for model, head in (("tiny-lstm", Head.RECURRENT), ("tiny-t5", Head.SEQ2SEQ), ("tiny-llama", Head.CAUSAL_LM)):
        if head not in scope.heads:
            assert f"{model} " in str(reason(job(name, model=model, kind=kind, device=device)))
    if not (scope.on_cpu and scope.on_gpu):
        elsewhere = GPU if scope.on_cpu else "cpu"
        assert f"the device is {elsewhere}" in str(reason(job(name, kind=kind, device=elsewhere)))
    assert limits_of(name)[0] == f"Applies to {scope}, in {any_of(sorted(REGISTRY[name].family.workloads))}."


def test_the_command_line_lists_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["toggles", "--json"]) == 0

    found = {item["id"]: item for item in json.loads(capsys.readouterr().out)}
    assert found["chunked-loss"]["applies_to"] == {
        "part": "the output layer and the loss",
        "models": ["causal-lm"],
        "devices": ["cpu", "gpu"],
    }
    amp = next(item for item in found["optimizer-in-backward"]["conflicts"] if item["with"] == "amp")
    assert amp["unless"] == ["amp:dtype=bfloat16"]
    assert amp in [item | {"with": "amp"} for item in found["amp"]["conflicts"]]


def test_a_list_to_choose_from_reads_as_one() -> None:
    assert [any_of(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a or b", "a, b or c"]
    assert str(Scope(part="the loss", heads=frozenset((Head.SEQ2SEQ,)), on_gpu=False)) == "the loss of seq2seq models on CPUs"

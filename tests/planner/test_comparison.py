"""Which runs a comparison needs, and what it makes of them."""

from __future__ import annotations

import pytest

from profiler.errors import SpecError
from profiler.optimizations.base import Family
from profiler.optimizations.optimizers import OPTIMIZER
from profiler.optimizations.registry import families, validate
from profiler.planner.comparison import MAX_TOGGLES, Comparison, name_of, parse_toggles
from profiler.recording import Provenance
from profiler.spec import Job, Model, Toggle, Workload

BASELINE = Job(model=Model(name="tiny-llama"), workload=Workload(batch=2, seq=32))


def compared(*toggles: str, baseline: Job = BASELINE, together: bool = True) -> Comparison:
    return Comparison(baseline=baseline, toggles=parse_toggles(toggles), together=together)


def test_the_asked_combination_comes_first_then_the_waterfall_then_the_rest() -> None:
    a, b, c = (Toggle(name) for name in ("bfloat16", "checkpointing", "lora"))
    assert list(compared("bf16", "ac", "lora").jobs()) == [(), (a, b, c), (a,), (a, b), (b,), (c,), (b, c), (a, c)]


def test_equal_runs_are_planned_once() -> None:
    assert len(compared("bfloat16").jobs()) == 2
    assert list(compared().jobs()) == [()]


def test_a_toggle_takes_the_place_of_the_baselines_own_of_its_family() -> None:
    jobs = compared("bfloat16", "sgd").jobs()
    together = [str(toggle) for toggle in jobs[(Toggle("bfloat16"), Toggle("sgd"))].toggles]
    assert {"bfloat16", "sgd"} <= set(together)
    assert not {"float32", "adamw"} & set(together)
    assert jobs[()] == validate(BASELINE)


def test_a_toggle_that_a_job_says_without_it_changes_the_jobs_field() -> None:
    (job,) = [job for switched, job in compared("micro-batches:count=2").jobs().items() if switched]
    assert job.workload.micro_batches == 2
    assert "micro-batches" not in {toggle.name for toggle in job.toggles}


def test_what_cannot_run_together_is_refused_before_a_run() -> None:
    with pytest.raises(SpecError, match="bfloat16 and float16 are both switched on"):
        compared("bfloat16", "float16").jobs()
    with pytest.raises(SpecError, match="named twice"):
        compared("bfloat16", "bf16")
    with pytest.raises(SpecError, match="too many"):
        compared(*(f"sgd:lr=0.{number}" for number in range(1, MAX_TOGGLES + 2)))


def test_a_family_is_swept_one_by_one() -> None:
    sweep = Comparison.of_family(BASELINE, OPTIMIZER)
    assert {toggle.name for toggle in sweep.toggles} >= {"adamw", "sgd", "adafactor"}
    assert all(len(switched) <= 1 for switched in sweep.jobs())


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_every_member_of_a_family_is_tried_or_refused_with_a_reason(family: Family) -> None:
    sweep = Comparison.of_family(BASELINE, family)
    assert next(iter(sweep.jobs())) == ()
    assert {(toggle,) for toggle in sweep.toggles} == (sweep.jobs().keys() | sweep.refusals().keys()) - {()}
    assert not sweep.jobs().keys() & sweep.refusals().keys()
    assert all(reason.endswith(".") for reason in sweep.refusals().values())


def test_what_the_engine_cannot_run_is_refused_before_a_run() -> None:
    ddp = parse_toggles(["ddp:ranks=2"])
    with pytest.raises(SpecError, match="ddp can only be simulated"):
        Comparison(baseline=BASELINE, toggles=ddp, engine=Provenance.MEASURED).jobs()
    assert Comparison(baseline=BASELINE, toggles=ddp, engine=Provenance.SIMULATED).jobs()
    (family,) = (family for family in families() if family.name == "parallelism")
    sweep = Comparison.of_family(BASELINE, family, Provenance.MEASURED)
    assert list(sweep.jobs()) == [()]
    assert {name_of(switched) for switched in sweep.refusals()} == {"ddp", "zero1", "fsdp2"}

"""The rows of estimates beside simulated and measured peaks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analysis.summary import summarize
from profiler.estimate.comparison import compare_estimates, estimates_for
from profiler.estimate.own import own_estimate
from profiler.estimate.result import Estimate
from profiler.estimate.states import estimate_states
from profiler.models.catalogue import entry
from profiler.recording import Category, Provenance
from profiler.spec import Job, Model, Toggle, Workload, ZeroGrad
from profiler.storage import read_recording
from tests.conftest import ROOT


def job(name: str, *toggles: str, device: str = "cpu", **workload: Any) -> Job:
    return Job(model=Model(name=name), workload=Workload(**workload), device=device, toggles=tuple(map(Toggle.parse, toggles)))


def own(wanted: Job) -> Estimate:
    return own_estimate(entry(wanted.model.name).num_parameters_with_head, wanted)


@pytest.mark.parametrize(
    "recording", ["1-gpt2-training", "2-bert-training", "5-plain-sgd", "6-sgd-with-momentum", "7-adamw", "8-whole-batch", "9-micro-batches"]
)
def test_the_formula_is_within_half_a_percent_of_a_measured_training_and_of_its_parts(recording: str) -> None:
    measured = summarize(read_recording(ROOT / "sample_traces" / f"{recording}.headroom"))
    found = own(Job.from_json(read_recording(ROOT / "sample_traces" / f"{recording}.headroom").metadata.job))
    assert found.total_bytes == pytest.approx(measured["peak_allocated_bytes"], rel=0.005)
    for part, num_bytes in found.parts.items():
        assert isinstance(part, Category)
        assert num_bytes == pytest.approx(measured["categories_at_peak"][part.name], rel=0.01)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(["gpt2", "bert-base", "llama-3-8b", "mixtral-8x7b", "t5-small", "lstm"]),
    kind=st.sampled_from(["train", "prefill", "decode"]),
    batch=st.sampled_from([1, 4, 32]),
    parts=st.sampled_from([1, 2]),
    seq=st.sampled_from([1, 100, 512]),
    steps=st.integers(1, 2),
    zero_grad=st.sampled_from(list(ZeroGrad)),
    toggle=st.sampled_from(["float32", "bfloat16"]),
    device=st.sampled_from(["cpu", "cuda"]),
)
def test_the_estimate_is_never_below_the_lower_bound(
    name: str, kind: str, batch: int, parts: int, seq: int, steps: int, zero_grad: ZeroGrad, toggle: str, device: str
) -> None:
    if name == "bert-base" and kind == "decode":
        return
    wanted = job(
        name,
        toggle,
        device=device,
        kind=kind,
        batch=batch * parts,
        micro_batches=parts,
        seq=seq,
        steps=steps,
        warmup_steps=0,
        zero_grad=zero_grad,
        new_tokens=4,
    )
    bound = estimate_states(entry(name).num_parameters_with_head, wanted).lower_bound_bytes
    found = own(wanted)
    assert found.total_bytes >= bound
    if kind != "train":
        assert found.total_bytes == bound
    assert all(num_bytes > 0 for num_bytes in found.parts.values())


def test_foreach_makes_a_copy_of_the_parameters_in_the_step_and_for_loop_two_of_the_largest() -> None:
    foreach = own(job("gpt2", "adamw:implementation=foreach", batch=1, seq=8)).parts
    assert foreach[Category.OPTIMIZER_TEMPORARY] == foreach[Category.PARAMETER]
    loop = own(job("gpt2", "adamw", batch=1, seq=8)).parts
    assert loop[Category.OPTIMIZER_TEMPORARY] == 2 * 50_257 * 768 * 4
    assert Category.OPTIMIZER_TEMPORARY not in own(job("gpt2", "adamw:implementation=fused", batch=1, seq=8)).parts


def test_gradients_that_live_through_forward_are_counted() -> None:
    early, late = (own(job("gpt2", batch=4, seq=256, zero_grad=place)) for place in ("after_step", "before_backward"))
    kept = own(job("gpt2", batch=4, seq=256, set_to_none=False))
    assert kept.total_bytes - early.total_bytes == 4 * 124_439_808
    assert late.total_bytes - early.total_bytes == 4 * 124_439_808 - 2 * 4 * 1024 * 50_257


def test_what_has_no_formula_is_said() -> None:
    assert "Activations are left out: there is no formula for lstm." in own(job("lstm", batch=1, seq=8)).validity
    assert "left out" not in own(job("gpt2", batch=1, seq=8)).validity


def test_others_answer_a_training_and_only_those_with_a_formula_a_decode() -> None:
    training = estimates_for(124_439_808, job("gpt2"))
    names = ["Headroom", "accelerate estimate-memory", "DeepSpeed, ZeRO stage 3 on one GPU", "EleutherAI cookbook", "Megatron-LM"]
    assert [estimate.name for estimate in training] == names
    decode = estimates_for(124_439_808, job("gpt2", kind="decode"))
    assert [estimate.name for estimate in decode] == ["Headroom", "accelerate estimate-memory", "EleutherAI cookbook"]
    assert all(estimate.source_url.startswith("https://") and estimate.validity.endswith(".") for estimate in (*training, *decode))


def test_accelerate_and_deepspeed_say_so_much_for_gpt2() -> None:
    _, accelerate, deepspeed, *_ = estimates_for(124_439_808, job("gpt2"))
    assert accelerate.total_bytes == 4 * 4 * 124_439_808
    assert deepspeed.total_bytes == 4 * 50_257 * 768 + 18 * 124_439_808
    assert estimates_for(124_439_808, job("gpt2", kind="prefill"))[1].total_bytes == 4 * 124_439_808


def summary(provenance: str, peak: int) -> dict[str, Any]:
    return {"provenance": provenance, "title": provenance, "peak_allocated_bytes": peak}


def test_errors_are_against_the_measured_peak_where_there_is_one() -> None:
    estimate = Estimate(name="E", formula_text="f", source_url="u", validity="V.", parts={Category.PARAMETER: 150, "rest": 30})
    rows = compare_estimates([estimate], [summary("measured", 200), summary("simulated", 190)])
    assert [(row.name, row.provenance, row.peak_bytes, row.error_percent) for row in rows] == [
        ("E", Provenance.ESTIMATED, 180, -10.0),
        ("simulated", Provenance.SIMULATED, 190, -5.0),
        ("measured", Provenance.MEASURED, 200, None),
    ]
    assert json.loads(json.dumps(rows[0].to_json()))["provenance"] == "estimated"


def test_errors_are_against_the_simulated_peak_without_a_measured_one_and_none_without_any() -> None:
    estimates = estimates_for(124_439_808, job("gpt2"))
    simulated = compare_estimates(estimates, [summary("simulated", 10**9)])
    assert simulated[0].error_percent == pytest.approx(100 * (estimates[0].total_bytes - 10**9) / 10**9)
    assert {row.error_percent for row in compare_estimates(estimates)} == {None}


def test_an_estimate_as_json_names_its_parts() -> None:
    data = own(job("gpt2", batch=4, seq=256)).to_json()
    assert data["parts"]["PARAMETER"] == 4 * 124_439_808
    assert data["total_bytes"] == sum(data["parts"].values())
    assert data["provenance"] == "estimated"

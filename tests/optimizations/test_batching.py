"""Batch, sequence, micro-batches and zero_grad as toggles: the same job as its workload would say, and bytes that were counted by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from profiler import read_recording
from profiler.analysis.equality import compare_recordings
from profiler.analysis.timeline import Timeline
from profiler.errors import SpecError
from profiler.optimizations.registry import switch_on, validate
from profiler.planner.validation import measure_and_simulate
from profiler.recording import Category, Phase
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload, ZeroGrad


def job(*toggles: str, **workload: Any) -> Job:
    workload = {"batch": 4, "seq": 64, "steps": 1} | workload
    return Job(model=Model(name="tiny-llama"), workload=Workload(**workload), toggles=tuple(map(Toggle.parse, ("sgd", *toggles))))


@pytest.mark.parametrize(
    ("toggle", "fields"),
    [
        ("batch-size:sequences=2", {"batch": 2}),
        ("sequence-length:tokens=48", {"seq": 48}),
        ("sequence-length", {"seq": 32}),
        ("micro-batches:count=4", {"micro_batches": 4}),
        ("grad-accumulation", {"micro_batches": 2}),
        ("keep-gradients", {"set_to_none": False}),
        ("zero-grad", {"zero_grad": ZeroGrad.BEFORE_BACKWARD}),
        ("zero-grad:place=before_forward", {"zero_grad": ZeroGrad.BEFORE_FORWARD}),
    ],
)
def test_a_toggle_is_another_way_to_write_the_workload(toggle: str, fields: dict[str, Any]) -> None:
    assert validate(job(toggle)) == validate(job(**fields))
    assert validate(job(toggle)).id == validate(job(**fields)).id


def test_they_go_together_the_batch_before_its_parts() -> None:
    both = validate(job("batch-size:sequences=8", "micro-batches:count=8", "keep-gradients"))
    assert (both.workload.batch, both.workload.micro_batches, both.workload.set_to_none) == (8, 8, False)
    assert switch_on(both, [Toggle.parse("micro-batches:count=2")]).workload.micro_batches == 2


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (job("micro-batches:count=3"), "batch=4 cannot be cut into micro_batches=3 equal parts."),
        (job("batch-size:sequences=0"), "sequences=0 is not possible. Use a whole number from 1 to 65536."),
        (job("zero-grad:place=never"), "Choose one of after_step, before_forward, before_backward."),
        (job("sequence-length:tokens=100000"), "tiny-llama has"),
    ],
)
def test_what_the_workload_cannot_be_is_refused(wanted: Job, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        validate(wanted)


def test_inference_has_no_gradients_to_keep_but_a_batch() -> None:
    prefill = Job(model=Model(name="tiny-llama"), workload=Workload(kind="prefill", batch=2), toggles=(Toggle("batch-size"),))
    assert validate(prefill).workload.batch == 1
    with pytest.raises(SpecError, match="keep-gradients has no effect in prefill: batching is for train"):
        validate(Job(model=prefill.model, workload=prefill.workload, toggles=(Toggle("keep-gradients"),)))


@pytest.mark.parametrize("place", ZeroGrad)
@pytest.mark.parametrize("other", ["keep-gradients", "micro-batches", "optimizer-in-backward"])
def test_wherever_gradients_are_dropped_both_engines_see_the_same_bytes(other: str, place: ZeroGrad, tmp_path: Path) -> None:
    wanted = job(other, f"zero-grad:place={place}", batch=2, seq=16, steps=2)

    equality = compare_recordings(*measure_and_simulate(validate(wanted), "cpu", tmp_path))

    assert equality.phases
    assert equality.largest_difference == 0


def test_kept_gradients_add_up_over_micro_batches_on_both_engines(tmp_path: Path) -> None:
    wanted = validate(job("keep-gradients", "micro-batches", "zero-grad:place=before_forward", batch=2, seq=16, steps=2))

    measured, simulated = measure_and_simulate(wanted, "cpu", tmp_path)

    assert compare_recordings(measured, simulated).largest_difference == 0


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ("keep-gradients", "optimizer-in-backward frees each gradient once it is used, so that there is none to keep."),
        ("micro-batches", "optimizer-in-backward updates with the gradient of each backward, and micro-batches add up those of several."),
    ],
)
def test_what_needs_gradients_that_stay_is_refused_beside_the_optimizer_in_backward(other: str, reason: str) -> None:
    with pytest.raises(SpecError, match=re.escape(f"{other} and optimizer-in-backward do not go together: {reason}")):
        validate(job("optimizer-in-backward", other))


def largest(folder: Path, *toggles: str) -> dict[Category, int]:
    """Return the most of each category in the forward of the last step, simulated for a CPU."""
    simulate_job(job(*toggles), folder / "run.headroom")
    timeline = Timeline.of(read_recording(folder / "run.headroom"))
    forwards = [phase for phase in timeline.phases if phase.name == Phase.FORWARD]
    events = [
        event
        for phase in forwards[len(forwards) // 2 :]
        for event in range(timeline.num_events)
        if phase.start_us <= timeline.blocks.event_us[event] <= phase.end_us
    ]
    found: dict[Category, int] = {}
    for event in events[::7]:
        for category, num_bytes in timeline.categories_at(event).items():
            found[category] = max(found.get(category, 0), num_bytes)
    return found


def test_what_a_forward_meets_and_makes_is_what_the_formulas_say(tmp_path: Path) -> None:
    runs = {
        toggles: largest(tmp_path / str(number), *toggles)
        for number, toggles in enumerate([(), ("micro-batches:count=4",), ("batch-size:sequences=1",), ("keep-gradients",), ("zero-grad",)])
    }
    whole, parts, single = runs[()], runs[("micro-batches:count=4",)], runs[("batch-size:sequences=1",)]
    parameters = whole[Category.PARAMETER]

    assert Category.GRADIENT not in whole
    assert Category.GRADIENT not in single
    assert [runs[key][Category.GRADIENT] for key in [("micro-batches:count=4",), ("keep-gradients",), ("zero-grad",)]] == [parameters] * 3
    assert parts[Category.ACTIVATION] == single[Category.ACTIVATION]
    assert whole[Category.ACTIVATION] == pytest.approx(4 * single[Category.ACTIVATION], rel=0.02)  # the rotary tables have no batch

"""Master weights: bytes counted by hand, in the order in which two real implementations copy, and updates that rounding would lose."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from profiler.analysis.timeline import Timeline
from profiler.errors import SpecError
from profiler.optimizations.master_optimizer import MasterOptimizer
from profiler.optimizations.registry import setup_for, validate
from profiler.planner.validation import measure_and_simulate
from profiler.recording import Category, Phase
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording


def job(*toggles: str, device: str = "cpu", kind: str = "train") -> Job:
    workload = Workload(kind=kind, batch=1, seq=16, steps=1)
    return Job(model=Model(name="tiny-llama"), workload=workload, device=device, toggles=tuple(map(Toggle.parse, toggles)))


def at_the_end_of(timeline: Timeline, phase: Phase) -> dict[Category, int]:
    """Return bytes by category when the last phase of this name ends."""
    end_us = next(found.end_us for found in reversed(timeline.phases) if found.name == phase)
    return timeline.categories_at(int((timeline.blocks.event_us <= end_us).sum()) - 1)


@pytest.mark.parametrize(("gradients", "gradient_bytes"), [("dropped", 4), ("kept", 2)])
def test_each_parameter_takes_what_the_formula_says(tmp_path: Path, gradients: str, gradient_bytes: int) -> None:
    recordings = measure_and_simulate(job(f"master-weights:gradients={gradients}"), "cpu", tmp_path)
    for recording in recordings:
        num_parameters = recording.metadata.facts["num_parameters"]
        timeline = Timeline.of(recording)
        held = at_the_end_of(timeline, Phase.OPTIMIZER)
        assert held[Category.PARAMETER] == 2 * num_parameters
        assert held[Category.MASTER_PARAMETER] == 4 * num_parameters
        assert held[Category.GRADIENT] == gradient_bytes * num_parameters  # what zero_grad is about to drop
        assert held[Category.OPTIMIZER_STATE] == pytest.approx(8 * num_parameters, rel=1e-4)  # and the step counters
        in_step = {"dropped": 4, "kept": 2 + 4}[gradients]
        assert timeline.categories_at(timeline.peak_event)[Category.GRADIENT] == in_step * num_parameters


def test_on_a_gpu_too_the_peak_is_that_of_the_step(tmp_path: Path) -> None:
    simulate_job(job("master-weights", "adamw:implementation=fused", device="a100-80gb"), tmp_path / "run.headroom")
    recording = read_recording(tmp_path / "run.headroom")
    at_peak = Timeline.of(recording).categories_at(Timeline.of(recording).peak_event)
    num_parameters = recording.metadata.facts["num_parameters"]
    beside_the_allocators_rounding = (at_peak[Category.MASTER_PARAMETER] + at_peak[Category.GRADIENT]) / (8 * num_parameters)
    assert 1 <= beside_the_allocators_rounding < 1.1


def test_updates_smaller_than_bfloat16_can_tell_add_up() -> None:
    parameter = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MasterOptimizer([parameter], lambda given: torch.optim.SGD(given, lr=1e-3), keeps_gradients=False)
    for _ in range(8):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert torch.equal(parameter, torch.full((4,), 1 - 8e-3).bfloat16())

    alone = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    plain = torch.optim.SGD([alone], lr=1e-3)
    for _ in range(8):
        alone.grad = torch.ones_like(alone)
        plain.step()
    assert torch.equal(alone, torch.ones(4).bfloat16())  # each of them is rounded away


@pytest.mark.parametrize("keeps_gradients", [False, True])
@pytest.mark.parametrize("set_to_none", [False, True])
def test_gradients_are_where_the_implementation_leaves_them(keeps_gradients: bool, set_to_none: bool) -> None:
    half, whole = nn.Parameter(torch.ones(4, dtype=torch.bfloat16)), nn.Parameter(torch.ones(4))
    optimizer = MasterOptimizer([half, whole], torch.optim.SGD, keeps_gradients=keeps_gradients)
    half.grad, whole.grad = torch.ones_like(half), torch.ones_like(whole)
    optimizer.step()
    [master, _] = optimizer.param_groups[0]["params"]

    assert optimizer.num_masters == 1
    assert (half.grad is not None, master.grad is not None) == (keeps_gradients, not keeps_gradients)
    optimizer.zero_grad(set_to_none)
    for gradient in (half.grad, master.grad, whole.grad):
        assert gradient is None or (not set_to_none and not gradient.any())
    assert (whole.grad is None) == set_to_none


def test_parameters_that_are_float32_already_have_no_copy_and_it_says_so() -> None:
    setup = setup_for(job("master-weights", "lora"))
    assert setup.make_optimizer is not None
    setup.make_optimizer([nn.Parameter(torch.ones(2))])
    assert setup.notes == ["master-weights: 0 parameters have a copy, since all that are trained are float32 already."]


def test_it_is_one_choice_of_precision_and_in_inference_bfloat16() -> None:
    assert [str(toggle) for toggle in validate(job("master-weights")).toggles] == ["adamw", "master-weights"]
    setup = setup_for(job("master-weights", kind="prefill"))
    assert (setup.dtype, setup.make_optimizer) == (torch.bfloat16, None)
    with pytest.raises(SpecError, match="amp and master-weights are both switched on"):
        validate(job("master-weights", "amp"))
    with pytest.raises(SpecError, match="optimizer-in-backward leaves none. Switch one of them off."):
        validate(job("master-weights", "optimizer-in-backward"))

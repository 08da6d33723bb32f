"""What waits on the host changes no number; beside a GPU both memories are told apart, each with the bytes counted by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import nn

from profiler.analysis.blocks import Blocks, Lane
from profiler.analysis.summary import summarize
from profiler.analysis.timeline import Timeline
from profiler.capture.repeat import repeat_job
from profiler.errors import SimulationUnsupported, SpecError
from profiler.optimizations import registry
from profiler.optimizations.host_memory import HostOptimizer, OffloadedActivations
from profiler.optimizations.registry import setup_for, validate
from profiler.planner.validation import measure_and_simulate
from profiler.recording import HOST, PINNED_HOST, Category, Recording
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording

GPU = "rtx-4090"
PARAMETER_BYTES = 20_456_448
"""Of tiny-llama in float32: 5,114,112 numbers; each of its tensors is a multiple of 512 bytes."""
PINNED_PARAMETER_BYTES = 23_602_176
"""Each tensor in a power of two: 3 x 768 x 256 x 4 bytes become 1 MiB in each of 4 layers, all others are powers of two already."""


def job(*toggles: str, model: str = "tiny-llama", device: str = "cpu", **workload: Any) -> Job:
    workload = {"batch": 2, "seq": 64, "steps": 1} | workload
    return Job(model=Model(name=model), workload=Workload(**workload), device=device, toggles=tuple(map(Toggle.parse, toggles)))


@cache
def simulated(*toggles: str) -> Recording:
    with TemporaryDirectory() as folder:
        simulate_job(job(*toggles, device=GPU), Path(folder) / "simulated.headroom")
        return read_recording(Path(folder) / "simulated.headroom")


def peak(recording: Recording, device: int) -> dict[Category, int]:
    """Return the bytes by category at the peak of one memory."""
    line = Timeline.of(recording, lane=Lane(device, 0))
    return line.categories_at(line.peak_event)


def losses(*toggles: str, **options: Any) -> tuple[float, ...]:
    return repeat_job(validate(job(*toggles, steps=3, seq=16, **options))).losses


@pytest.mark.parametrize(
    "toggles",
    [
        ("offload-activations:min_bytes=0",),
        ("offload-optimizer",),
        ("offload-optimizer:gradients=false",),
        ("offload-parameters",),
        ("offload-parameters", "offload-activations", "checkpointing"),
    ],
)
def test_losses_over_steps_are_those_of_a_run_without(toggles: tuple[str, ...]) -> None:
    assert losses(*toggles) == losses()


@pytest.mark.parametrize("toggle", ["offload-optimizer", "offload-optimizer:gradients=false", "offload-parameters"])
def test_gradients_accumulate_on_the_host_as_on_the_device(toggle: str) -> None:
    assert losses(toggle, batch=4, micro_batches=2) == losses(batch=4, micro_batches=2)


def test_a_tied_weight_is_brought_to_both_of_its_modules() -> None:
    assert losses("offload-parameters", model="tiny-gpt2") == pytest.approx(losses(model="tiny-gpt2"), rel=1e-6)


def test_a_parameter_without_gradient_is_not_updated_with_the_last_one() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = HostOptimizer([used, unused], lambda parameters: torch.optim.SGD(parameters, lr=0.5), pinned=False)
    for parameters in ([used, unused], [used]):
        for parameter in parameters:
            parameter.grad = torch.ones(3)
        optimizer.step()
        optimizer.zero_grad()

    assert (used[0].item(), unused[0].item()) == (0.0, 0.5)


def test_parameters_and_small_tensors_stay_where_they_are() -> None:
    linear = nn.Linear(8, 8)
    pack: Any = OffloadedActivations(8 * 8 * 4, pinned=False).pack_hook
    large, small, view = torch.ones(8, 8), torch.ones(8), linear.weight.t()
    packed = [pack(large)[1], pack(small), pack(view), pack(linear.weight)]

    assert packed[0].data_ptr() != large.data_ptr()
    assert [kept.data_ptr() for kept in packed[1:]] == [small.data_ptr(), view.data_ptr(), linear.weight.data_ptr()]


def test_the_gpu_gives_up_exactly_the_optimizer_state() -> None:
    """Adam's two moments; its counters were on the host before."""
    without, offloaded = simulated(), simulated("offload-optimizer:gradients=false")

    assert peak(without, 0)[Category.OPTIMIZER_STATE] == 2 * PARAMETER_BYTES
    assert Category.OPTIMIZER_STATE not in peak(offloaded, 0)
    assert peak(offloaded, HOST)[Category.OPTIMIZER_STATE] - 2 * PARAMETER_BYTES == peak(without, HOST)[Category.OPTIMIZER_STATE]


def test_copies_of_parameters_and_gradients_are_pinned_in_powers_of_two() -> None:
    expected = {Category.MASTER_PARAMETER: PINNED_PARAMETER_BYTES, Category.GRADIENT: PINNED_PARAMETER_BYTES}

    assert peak(simulated("offload-optimizer"), PINNED_HOST) == expected


def test_gradients_that_are_taken_never_exist_together_on_the_gpu() -> None:
    def most(recording: Recording) -> int:
        blocks = Blocks.of(recording)
        line = Timeline.of(recording, blocks, Lane(0, 0))
        return int(line.total[line.counted_events[-1]])  # after the step; what is left is what outlives it

    kept, taken = simulated("offload-optimizer:gradients=false", "keep-gradients"), simulated("offload-optimizer", "keep-gradients")

    assert most(kept) - most(taken) == PARAMETER_BYTES


def test_parameters_on_the_host_leave_one_module_at_a_time_on_the_gpu() -> None:
    """The largest are embedding and output layer: 4,096 x 256 numbers."""
    found = simulated("offload-parameters", "sgd")
    line = Timeline.of(found, lane=Lane(0, 0))
    parameters = line.blocks.bytes[(line.blocks.device == 0) & (line.blocks.category == list(Category).index(Category.PARAMETER))]

    assert peak(found, PINNED_HOST) == {Category.PARAMETER: PINNED_PARAMETER_BYTES}
    assert parameters.max() == 4096 * 256 * 4
    assert all(amount <= 4096 * 256 * 4 for amount in _alive(line, Category.PARAMETER))


def _alive(line: Timeline, category: Category) -> list[int]:
    """Return the bytes of a category on the line's lane after each of its events."""
    blocks, wanted = line.blocks, line.members[line.blocks.category[line.members] == list(Category).index(category)]
    changes = [(int(blocks.birth_event[row]), int(blocks.bytes[row])) for row in wanted]
    changes += [(int(blocks.death_event[row]), -int(blocks.bytes[row])) for row in wanted]
    totals, total = [], 0
    for _, change in sorted(changes):
        total += change
        totals.append(total)
    return totals


def test_what_leaves_the_gpu_is_on_the_host() -> None:
    """Every activation that was saved, some of them several times, so at least as much as the GPU held at the end of forward."""
    without, offloaded = simulated("sgd", "bf16"), simulated("sgd", "bf16", "offload-activations")
    saved = peak(without, 0)[Category.ACTIVATION]

    assert sum(peak(offloaded, PINNED_HOST).values()) >= saved
    assert peak(offloaded, 0).get(Category.ACTIVATION, 0) < saved / 10


def test_a_summary_tells_the_peak_of_every_memory() -> None:
    summary = summarize(simulated("offload-optimizer"))

    assert summary["lanes"] == list(summary["peak_by_lane"]) == ["GPU 0", "Host", "Pinned host"]
    assert summary["peak_by_lane"]["GPU 0"] == summary["peak_allocated_bytes"]
    assert summary["peak_by_lane"]["Pinned host"] == 2 * PINNED_PARAMETER_BYTES


@pytest.mark.parametrize(
    ("toggles", "message"),
    [
        (
            ("offload-optimizer", "offload-parameters"),
            "so offload-optimizer has nothing left to move. Switch one of them off",
        ),
        (("offload-optimizer", "optimizer-in-backward"), "Switch one of them off"),
        (("offload-optimizer", "amp:dtype=float16"), "Use amp:dtype=bfloat16"),
        (("offload-parameters", "amp"), "Use bfloat16 as the precision, or switch one of them off"),
        (("offload-parameters", "chunked-loss"), "where offload-parameters does not bring it. Switch one of them off"),
    ],
)
def test_what_cannot_be_together_is_refused(toggles: tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        validate(job(*toggles))


@pytest.mark.parametrize("method", ["adalora", "ia3"])
def test_adapters_that_no_module_brings_are_refused_on_a_gpu_where_they_would_fail(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = job("offload-parameters", method, device=GPU)
    with pytest.raises(SpecError, match="belongs to no module that runs"):
        validate(wanted)
    assert validate(job("offload-parameters", method))

    monkeypatch.setattr(registry, "_check_conflicts", lambda *_: None)
    with pytest.raises(SimulationUnsupported, match="mixes tensors of the GPU and of the host"):
        simulate_job(wanted, tmp_path / "run.headroom")


def test_an_optimizer_on_the_host_is_what_torch_chooses_for_a_host() -> None:
    def is_foreach(*toggles: str) -> bool:
        made: Any = setup_for(job(*toggles, device=GPU)).make_optimizer
        return bool(made.keywords["foreach"])

    assert is_foreach()
    assert not is_foreach("offload-parameters")


@pytest.mark.parametrize(("min_bytes", "num_moved"), [(1_048_576, 1), (1_048_577, 0)])
def test_a_run_that_moves_nothing_says_so_measured_and_simulated(min_bytes: int, num_moved: int, tmp_path: Path) -> None:
    """The largest tensor that tiny-llama saves is that of the loss: 2 x 32 tokens x 4,096 words x 4 bytes."""
    nothing = "0 tensors moved: none that autograd saved has 1,048,577 bytes or more and is no parameter. Choose a smaller min_bytes."
    recordings = measure_and_simulate(validate(job(f"offload-activations:min_bytes={min_bytes}", seq=32)), "cpu", tmp_path)

    assert [recording.metadata.facts["notes"] for recording in recordings] == [[] if num_moved else [nothing]] * 2

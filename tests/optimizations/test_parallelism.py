"""One rank of several: what it holds is computed by hand, and equals what a real process of two holds."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.equality import compare_recordings
from profiler.analysis.summary import summarize
from profiler.errors import SpecError
from profiler.models.build import build_model
from profiler.optimizations.parallelism import MAX_RANKS, fullest_rank
from profiler.optimizations.registry import setup_for, validate
from profiler.recording import Category, Recording, Role
from profiler.simulate.engine import simulate_job
from profiler.simulate.session import Simulation
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording
from profiler.workloads import find_ranks
from tests.optimizations.launched_ranks import NUM_RANKS, record_ranks

SCALAR_BYTES = 8
MAX_SCALARS = 8
"""Of the numbers that operators wrap, and that a mesh of ranks is described by."""
STEP_BYTES = 4
"""Of Adam's counter of steps, one a parameter."""
FLOAT32_BYTES = 4
SIZES = st.lists(st.integers(1, 10**9), min_size=1, max_size=30)


def job_of(*toggles: str, model: str = "tiny-llama", steps: int = 1) -> Job:
    return Job(model=Model(name=model), workload=Workload(batch=2, seq=32, steps=steps), toggles=tuple(map(Toggle.parse, toggles)))


def simulated(folder: Path, *toggles: str) -> Recording:
    simulate_job(job_of(*toggles), folder / "simulated.headroom")
    return read_recording(folder / "simulated.headroom")


def at_peak(recording: Recording) -> dict[str, int]:
    """Return the bytes of each category at the peak, and ``total``."""
    summary = summarize(recording)
    return {**summary["categories_at_peak"], "total": summary["peak_allocated_bytes"]}


@pytest.fixture(scope="module")
def shapes() -> list[torch.Size]:
    """The model's parameters."""
    return [parameter.shape for parameter in build_model(Model(name="tiny-llama"), torch.float32, "meta").parameters()]


def share_bytes(shapes: list[torch.Size], num_ranks: int) -> int:
    """Return the bytes of the first rank's share: of every parameter, the first of ``num_ranks`` equal numbers of rows, rounded up."""
    return sum(-(-shape[0] // num_ranks) * shape[1:].numel() * FLOAT32_BYTES for shape in shapes)


def test_buckets_are_as_large_as_the_gradients(tmp_path: Path, shapes: list[torch.Size]) -> None:
    alone, rank = at_peak(simulated(tmp_path)), at_peak(simulated(tmp_path, "ddp"))
    gradients = sum(shape.numel() for shape in shapes) * FLOAT32_BYTES

    assert rank == alone | {"COMMUNICATION": gradients, "total": alone["total"] + gradients}


def test_gradients_that_are_views_of_buckets_take_no_more_in_the_optimizers_step(tmp_path: Path) -> None:
    alone, rank = (
        at_peak(simulated(tmp_path, "adamw:implementation=foreach")),
        at_peak(simulated(tmp_path, "adamw:implementation=foreach", "ddp:bucket_view=true")),
    )

    assert rank == alone


def test_the_fullest_rank_of_zero_1_keeps_the_state_of_its_parameters(tmp_path: Path, shapes: list[torch.Size]) -> None:
    recording = simulated(tmp_path, "zero1:ranks=8")
    rank, share = fullest_rank([shape.numel() for shape in shapes], 8)
    state = at_peak(recording)["OPTIMIZER_STATE"]

    assert (rank, share) == (0, 4096 * 256)  # the embedding alone is more than an eighth of the model
    assert state == 2 * share * FLOAT32_BYTES + STEP_BYTES
    assert recording.metadata.facts["notes"] == [
        "Rank 0 of 8 is shown: it keeps the optimizer state of 1,048,576 of 5,114,112 trained numbers, and no rank keeps more."
    ]


@pytest.mark.parametrize("num_ranks", [2, 3, 8])
def test_a_rank_of_fsdp2_holds_its_share_of_parameters_and_state(tmp_path: Path, shapes: list[torch.Size], num_ranks: int) -> None:
    rank = at_peak(simulated(tmp_path, f"fsdp2:ranks={num_ranks}"))

    assert rank["PARAMETER"] == share_bytes(shapes, num_ranks)
    assert rank["OPTIMIZER_STATE"] == 2 * share_bytes(shapes, num_ranks) + STEP_BYTES * len(shapes)


def test_parameters_that_are_not_dropped_after_forward_are_gathered_whole(tmp_path: Path, shapes: list[torch.Size]) -> None:
    rank = at_peak(simulated(tmp_path, "fsdp2:ranks=8,reshard=false"))

    assert rank["COMMUNICATION"] == 8 * share_bytes(shapes, 8)


def test_gathered_are_the_layer_that_runs_the_next_one_and_what_belongs_to_no_layer(tmp_path: Path, shapes: list[torch.Size]) -> None:
    rank = at_peak(simulated(tmp_path, "fsdp2:ranks=8"))
    num_layers, num_around = 4, 3
    of_one_layer = (len(shapes) - num_around) // num_layers
    layer, around = share_bytes(shapes[1 : 1 + of_one_layer], 8) * 8, share_bytes([shapes[0], *shapes[-2:]], 8) * 8

    assert rank["COMMUNICATION"] == around + 3 * layer  # one runs, and the next came in one piece and is cut into its parameters


def test_on_a_gpu_gathers_and_reductions_have_pools_of_their_own(tmp_path: Path) -> None:
    simulate_job(replace(job_of("fsdp2"), device="rtx-4090"), tmp_path / "simulated.headroom")
    events = read_recording(tmp_path / "simulated.headroom").events.to_pylist()
    streams = {event["stream"] for event in events if event["device"] >= 0}
    of_parameters = {event["stream"] for event in events if (event["roles"] or 0) & Role.PARAMETER}

    assert of_parameters == {0}
    assert len(streams) == 3  # where the model computes, where gathers are copied together, and where gradients are reduced


@given(SIZES, st.integers(2, MAX_RANKS))
def test_no_rank_keeps_less_than_a_fair_share_nor_more_than_one_parameter_beyond_it(sizes: list[int], num_ranks: int) -> None:
    rank, share = fullest_rank(sizes, num_ranks)

    assert 0 <= rank < num_ranks
    assert sum(sizes) <= share * num_ranks
    assert share <= sum(sizes) // num_ranks + max(sizes)


@pytest.mark.parametrize("sizes", [(5, 4, 4, 1), (1, 1, 1), (7, 6, 5, 4, 3, 2, 1), (9,)])
def test_the_fullest_rank_is_that_of_torch(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    from profiler.optimizations.data_parallel import ZeroRedundancyOptimizer

    rank, share = fullest_rank(sizes, 3)
    with Simulation(tmp_path / "x.headroom") as simulation:
        simulation.ranks.begin(3, rank)
        optimizer = ZeroRedundancyOptimizer([torch.nn.Parameter(torch.ones(size)) for size in sizes], torch.optim.SGD)
        dealt = [sum(p.numel() for group in groups for p in group["params"]) for groups in optimizer._partition_parameters()]

    assert dealt[rank] == share == max(dealt)


def test_ranks_end_with_their_simulation(tmp_path: Path) -> None:
    hook, resize = sys.excepthook, torch.UntypedStorage.resize_
    for num_ranks in (2, 5):
        simulated(tmp_path, f"fsdp2:ranks={num_ranks}")

    assert not dist.is_initialized()
    assert (sys.excepthook, torch.UntypedStorage.resize_) == (hook, resize)


@pytest.mark.parametrize(
    ("toggles", "reason"),
    [
        (("ddp", "optimizer-in-backward"), "not averaged yet"),
        (("zero1", "offload-parameters"), "on the host"),
        (("fsdp2", "adafactor"), "in place"),
        (("ddp", "fsdp2"), "one parallelism"),
    ],
)
def test_what_torch_cannot_do_together_is_refused(toggles: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        validate(job_of(*toggles))


def test_a_run_of_several_processes_needs_a_launcher() -> None:
    with pytest.raises(SpecError, match=r"one of 2 processes, and 1 was launched\. Simulate it"):
        find_ranks(2, 0)
    with pytest.raises(SpecError, match="torchrun"):
        setup_for(job_of("ddp")).transforms[-1](torch.nn.Linear(2, 2))


LAUNCHED = (
    ("ddp:ranks=2",),
    ("ddp:ranks=2,bucket_view=true,bucket_mib=1",),
    ("zero1:ranks=2",),
    ("fsdp2:ranks=2",),
    ("fsdp2:ranks=2,reshard=false", "sgd:momentum=0.9"),
    ("fsdp2:ranks=2,compute=bfloat16",),
)


@pytest.mark.slow
def test_a_simulated_rank_holds_what_a_real_one_of_two_holds(tmp_path: Path) -> None:
    jobs = [job_of(*toggles, steps=2) for toggles in LAUNCHED]
    record_ranks(jobs, tmp_path)

    losses = []
    for number, job in enumerate(jobs):
        simulate_job(job, tmp_path / "simulated.headroom")
        measured = read_recording(tmp_path / f"{number}.headroom")
        equality = compare_recordings(measured, read_recording(tmp_path / "simulated.headroom"))
        assert equality.largest_difference <= MAX_SCALARS * SCALAR_BYTES, (job.title, equality)
        assert Category.COMMUNICATION in equality.categories or "bucket_view" in job.title
        losses.append(measured.scalars["value"].to_pylist()[0])
    assert losses[:-1] == pytest.approx([losses[0]] * (len(jobs) - 1))  # every rank has the same batch here, so a mean changes nothing
    assert NUM_RANKS == 2

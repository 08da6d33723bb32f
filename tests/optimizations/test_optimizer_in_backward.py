"""Optimizer in backward: the same training, without all gradients at once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from profiler.analysis.blocks import Blocks
from profiler.analysis.categories import CATEGORY_CODES
from profiler.capture.engine import capture_job
from profiler.errors import SpecError
from profiler.estimate.states import estimate_states
from profiler.optimizations.registry import setup_for, validate
from profiler.recording import Category, Recording, Role
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording

LARGEST_PARAMETER_BYTES = 4096 * 256 * 4
"""tiny-llama's embedding."""


def job(*toggles: str, **workload: int) -> Job:
    fields = {"batch": 2, "seq": 16, "warmup_steps": 1, "steps": 2} | workload
    return Job(model=Model(name="tiny-llama"), workload=Workload(**fields), toggles=tuple(map(Toggle.parse, toggles)))  # type: ignore[arg-type]


@cache
def measured(wanted: Job) -> Recording:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run.headroom"
        capture_job(validate(wanted), path)
        return read_recording(path)


def most_alive_bytes(recording: Recording, category: Category) -> int:
    blocks = Blocks.of(recording)
    chosen = blocks.category == CATEGORY_CODES[category]
    alive = np.zeros(blocks.num_events + 1, np.int64)
    np.add.at(alive, blocks.birth_event[chosen], blocks.bytes[chosen])
    np.add.at(alive, blocks.death_event[chosen], -blocks.bytes[chosen])
    return int(np.cumsum(alive[:-1]).max())


def losses(recording: Recording) -> list[float]:
    return [row["value"] for row in recording.scalars.to_pylist() if row["name"] == "loss"]


@pytest.mark.parametrize("optimizer", ["adamw:lr=0.01", "lion:lr=0.001"])
def test_the_losses_are_those_of_a_step_after_backward(optimizer: str) -> None:
    inside, after = losses(measured(job(optimizer, "optimizer-in-backward"))), losses(measured(job(optimizer)))
    assert inside == after
    assert len(set(inside)) == len(inside) == 3


def test_gradients_of_two_parameters_are_never_there_together() -> None:
    inside, after = measured(job("adamw:lr=0.01", "optimizer-in-backward")), measured(job("adamw:lr=0.01"))
    assert most_alive_bytes(inside, Category.GRADIENT) == LARGEST_PARAMETER_BYTES
    assert most_alive_bytes(after, Category.GRADIENT) > 4 * LARGEST_PARAMETER_BYTES


def test_what_the_step_makes_within_backward_is_the_optimizers() -> None:
    blocks = Blocks.of(measured(job("adamw:lr=0.01", "optimizer-in-backward")))
    made = (blocks.roles & int(Role.UPDATE)) != 0
    assert made.any()
    assert set(blocks.category[made]) == {CATEGORY_CODES[category] for category in (Category.OPTIMIZER_STATE, Category.OPTIMIZER_TEMPORARY)}
    assert not (Blocks.of(measured(job("adamw:lr=0.01"))).roles & int(Role.UPDATE)).any()


def test_its_hooks_are_gone_after_the_run_and_not_shared_with_the_next() -> None:
    import torch

    setup = setup_for(job("sgd", "optimizer-in-backward"))
    assert setup.make_optimizer is not None
    parameter = torch.nn.Parameter(torch.ones(2))
    setup.make_optimizer([parameter])
    with setup.contexts[0]():
        parameter.sum().backward()
        assert parameter.grad is None
    with setup.contexts[0]():
        parameter.sum().backward()
    assert parameter.grad is not None


def test_the_formulas_count_no_gradients() -> None:
    assert estimate_states(1000, job("optimizer-in-backward")).gradients_bytes == 0
    assert estimate_states(1000, job()).gradients_bytes == 4000


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            job("optimizer-in-backward", micro_batches=2),
            "micro-batches add up those of several. Use one micro-batch, or switch one of them off.",
        ),
        (
            job("optimizer-in-backward", "amp:dtype=float16"),
            "cannot wait for the scaler that float16 needs. Use amp:dtype=bfloat16",
        ),
    ],
)
def test_what_needs_all_gradients_together_is_refused(wanted: Job, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        validate(wanted)

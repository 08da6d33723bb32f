"""Optimizers with quantized states: what they keep, where it is, and that on a GPU their step makes next to nothing."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from profiler.analysis.blocks import Blocks
from profiler.analysis.categories import CATEGORY_CODES
from profiler.analysis.summary import summarize
from profiler.devices import find_gpu
from profiler.errors import SimulationUnsupported, SpecError
from profiler.estimate.optimizer_state import torchao_state_bytes
from profiler.optimizations.quantized_optimizers import TorchaoAdamW
from profiler.optimizations.registry import REGISTRY, chosen, setup_for, validate
from profiler.recording import Category, Recording
from profiler.simulate.engine import simulate_job
from profiler.simulate.session import Simulation
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording
from profiler.workloads import build_model

TORCHAO = [name for name, item in REGISTRY.items() if isinstance(item, TorchaoAdamW)]
GPU = "rtx-4090"
STEP_COUNTER_BYTES = LEARNING_RATE_BYTES = 4


def job(*toggles: str, device: str = GPU) -> Job:
    workload = Workload(batch=1, seq=8)
    return validate(Job(model=Model(name="tiny-gpt2"), workload=workload, device=device, toggles=tuple(map(Toggle.parse, toggles))))


@cache
def simulated(wanted: Job) -> Recording:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run.headroom"
        simulate_job(wanted, path)
        return read_recording(path)


@cache
def shapes() -> tuple[tuple[int, ...], ...]:
    model = build_model(Model(name="tiny-gpt2"), torch.float32, "meta")
    return tuple(tuple(parameter.shape) for parameter in model.parameters())


def alive_bytes(recording: Recording, category: Category, device: int) -> int:
    """Return the requested bytes of a category that are alive at the end."""
    blocks = Blocks.of(recording)
    alive = blocks.death_event >= blocks.num_events
    chosen = alive & (blocks.category == CATEGORY_CODES[category]) & (blocks.device == device)
    return int(blocks.bytes[chosen].sum())


@pytest.mark.parametrize("name", TORCHAO)
def test_the_state_is_codes_scales_and_maps(name: str) -> None:
    wanted = job(name, device="cpu")
    kept = alive_bytes(simulated(wanted), Category.OPTIMIZER_STATE, -1)

    item = chosen(wanted, TorchaoAdamW)[0]
    assert kept == torchao_state_bytes(shapes(), item) + STEP_COUNTER_BYTES * len(shapes()) + LEARNING_RATE_BYTES


def test_the_state_of_one_matrix_by_hand() -> None:
    eight, four, fp8 = (REGISTRY[name] for name in ("adamw-8bit", "adamw-4bit", "adamw-fp8"))
    assert isinstance(eight, TorchaoAdamW)
    assert isinstance(four, TorchaoAdamW)
    assert isinstance(fp8, TorchaoAdamW)
    assert torchao_state_bytes([(64, 64)], eight) == 2 * (4096 + 16 * 4 + 256 * 4)
    assert torchao_state_bytes([(64, 64)], four) == 2 * (2048 + 32 * 4 + 16 * 4)
    assert torchao_state_bytes([(64, 64)], fp8) == 2 * (4096 + 16 * 4)
    assert torchao_state_bytes([(64, 63), (4095,), (4097,)], eight, itemsize=2) == 2 * 2 * (4032 + 4095 + 4097)


@pytest.mark.parametrize(
    ("name", "bytes_a_number"),
    [("adamw-8bit", 2 * (4 + 4 / 256)), ("adamw-4bit", 2 * (4 + 8 + 4 / 128)), ("adamw-fp8", 2 * 4 / 256)],
)
def test_on_a_gpu_the_compiled_step_makes_what_inductor_allocates_for_one_parameter(name: str, bytes_a_number: float) -> None:
    blocks = Blocks.of(simulated(job(name)))
    chosen = blocks.category == CATEGORY_CODES[Category.OPTIMIZER_TEMPORARY]
    alive = np.zeros(blocks.num_events + 1, np.int64)
    np.add.at(alive, blocks.birth_event[chosen], blocks.bytes[chosen])
    np.add.at(alive, blocks.death_event[chosen], -blocks.bytes[chosen])

    largest = max(torch.Size(shape).numel() for shape in shapes())
    assert largest % 256 == 0
    assert np.cumsum(alive)[:-1].max() == largest * bytes_a_number


@pytest.mark.parametrize("name", TORCHAO)
def test_its_first_step_is_that_of_adamw(name: str) -> None:
    torch.manual_seed(0)
    start, gradient = torch.randn(64, 64), torch.randn(64, 64)
    moved = []
    for text in (f"{name}:lr=0.01", "adamw:lr=0.01"):
        setup = setup_for(job(text, device="cpu"))
        parameter = torch.nn.Parameter(start.clone())
        parameter.grad = gradient.clone()
        assert setup.make_optimizer is not None
        optimizer = setup.make_optimizer([parameter])
        with setup.contexts[0]() if setup.contexts else torch.no_grad():
            optimizer.step()
        moved.append(parameter.detach())

    assert torch.allclose(moved[0], moved[1], atol=1e-6)
    assert not torch.equal(moved[0], start)


def test_paged_states_are_on_the_host_and_their_scales_on_the_gpu() -> None:
    recording = simulated(job("paged-adamw-8bit"))

    sizes = [torch.Size(shape).numel() for shape in shapes()]
    paged = [size for size in sizes if size >= 100_000]
    codes = [size for size in sizes if 4096 <= size < 100_000]
    small = [size for size in sizes if size < 4096]
    scales = sum(-(-size // 256) for size in [*paged, *codes])
    assert len(paged) > 2
    assert small
    assert alive_bytes(recording, Category.OPTIMIZER_STATE, -1) == 2 * sum(paged)
    assert alive_bytes(recording, Category.OPTIMIZER_STATE, 0) == 2 * (4 * scales + sum(codes) + 4 * sum(small) + 256 * 4)


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_paged_states_are_refused_where_they_would_be_measured(device: str) -> None:
    with pytest.raises(SpecError, match=f"simulated only, and the device is {device}. Simulate on a GPU such as rtx-4090, or use adamw"):
        job("paged-adamw-8bit", device=device)


def test_the_state_shrinks_from_adamw_to_4_bits() -> None:
    peaks = [summarize(simulated(job(name)))["states_bytes"] for name in ("adamw", "adamw-8bit", "adamw-4bit", "paged-adamw-8bit")]
    assert peaks == sorted(peaks, reverse=True)


def test_what_is_not_known_cannot_be_compiled_on_a_simulated_gpu(tmp_path: Path) -> None:
    with (
        pytest.raises(SimulationUnsupported, match=r"torch.compile is not modelled"),
        Simulation(tmp_path / "run.headroom", find_gpu(GPU)),
    ):
        torch.compile(torch.relu)

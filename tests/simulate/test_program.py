"""Any module and step function, simulated through the public function; what cannot be simulated is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import profiler
from profiler.analysis.summary import summarize
from profiler.analysis.timeline import Timeline
from profiler.errors import SimulationUnsupported, SpecError
from profiler.recording import Category, Provenance
from profiler.units import MIB

WIDTH = 256
WEIGHT_BYTES = WIDTH * WIDTH * 4


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.ReLU(), nn.Linear(WIDTH, WIDTH, bias=False))


def train(model: nn.Module, optimizer: torch.optim.Optimizer | None, device: torch.device) -> None:
    assert optimizer is not None
    model(torch.empty(8, WIDTH, device=device)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_every_byte_of_a_small_network_on_the_cpu() -> None:
    recording = profiler.simulate(two_layers, train, optimizer=partial(torch.optim.AdamW, foreach=False))
    line = Timeline.of(recording)

    weights = 2 * WEIGHT_BYTES
    state = 2 * weights + 2 * 4  # two moments, and a step counter a parameter
    gradients = weights
    temporaries = line.peak_bytes - weights - state - gradients
    assert recording.metadata.provenance is Provenance.SIMULATED
    assert line.at(line.peak_event).phase == "optimizer"
    categories = line.categories_at(line.peak_event)
    assert categories[Category.PARAMETER] == weights
    assert categories[Category.GRADIENT] == gradients
    assert categories[Category.OPTIMIZER_STATE] == state
    # The root of the second moment, that divided, and the quotient of the parameter before, which a local variable of the loop still holds;
    # the number that divides, wrapped into float64 and cast to float32.
    assert temporaries == 3 * WEIGHT_BYTES + 8 + 4


def test_on_a_gpu_the_allocators_rounding_counts_and_workspaces_stay() -> None:
    recording = profiler.simulate(two_layers, train, optimizer=partial(torch.optim.SGD, foreach=True), gpu="rtx-a6000")
    summary = summarize(recording)
    assert summary["lane"] == "GPU 0"
    assert summary["categories_at_peak"]["WORKSPACE"] == 2 * (2 * 4096 + 8 * 16) * 1024
    assert summary["peak_reserved_bytes"] % (2 * MIB) == 0
    assert summary["peak_reserved_bytes"] >= summary["peak_allocated_bytes"]
    assert "CUDA context" in summary["not_included"][0]


def test_a_module_moved_and_converted_keeps_its_parameters_and_ties() -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False))
        model[1].weight = model[0].weight
        return model.half()

    def step(model: Any, optimizer: Any, device: torch.device) -> None:
        assert model[0].weight is model[1].weight
        assert (model[0].weight.dtype, model[0].weight.device) == (torch.half, device)

    recording = profiler.simulate(tied, step, gpu="t4")
    line = Timeline.of(recording)
    assert int(line.total[-1]) == WEIGHT_BYTES // 2


class Reads(nn.Module):
    def __init__(self, read: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))
        self.read = read

    def forward(self, inputs: Tensor) -> Any:
        return self.read(self.weight * inputs)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (torch.nonzero, "aten::nonzero makes a tensor whose size depends on values"),
        (lambda tensor: tensor[tensor > 0], "aten::nonzero"),
        (torch.unique, "aten::_unique2"),
        (lambda tensor: tensor.detach().numpy(), "reads values"),
        (lambda tensor: torch.compile(torch.relu)(tensor), "torch.compile is not modelled"),
        (lambda tensor: tensor + torch.ones(4), "mixes tensors of the GPU and of the host"),
    ],
)
def test_what_needs_values_is_refused_with_the_operator_and_the_way_out(tmp_path: Path, read: Callable[[Tensor], Any], words: str) -> None:
    def step(model: nn.Module, optimizer: Any, device: torch.device) -> None:
        model(torch.ones(4, device=device))

    with pytest.raises(SimulationUnsupported, match=words):
        profiler.simulate(lambda: Reads(read), step, gpu="a100-80gb", path=tmp_path / "run.headroom")
    assert not list(tmp_path.iterdir()), "a simulation that failed leaves nothing that could be taken for a result"


def test_an_operator_without_a_fake_kernel_is_named() -> None:
    library = torch.library.Library("headroom_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
    library.impl("twice", lambda tensor: tensor * 2, "CPU")  # type: ignore[no-untyped-call]

    def step(model: nn.Module, optimizer: Any, device: torch.device) -> None:
        torch.ops.headroom_test.twice(torch.empty(3, device=device))

    with pytest.raises(SimulationUnsupported, match=r"headroom_test::twice has no kernel for fake tensors"):
        profiler.simulate(two_layers, step)


def test_a_programs_own_error_stays_its_own() -> None:
    def step(model: nn.Module, optimizer: Any, device: torch.device) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        profiler.simulate(two_layers, step)


def test_an_unknown_gpu_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match="rtx-4090"):
        profiler.simulate(two_layers, train, gpu="rtx-4091")

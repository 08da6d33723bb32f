"""What CUDA does otherwise than the CPU: workspaces of products, dropout, norms, tensors made of numbers; and questions about memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from profiler.devices import find_gpu
from profiler.recording import Role
from profiler.simulate.session import Simulation
from profiler.storage import read_recording

MIB = 1 << 20
WORKSPACE_BYTES = 8_519_680


def product(device: torch.device, *, requires_grad: bool = False) -> torch.Tensor:
    return torch.mm(torch.empty(8, 8, device=device, requires_grad=requires_grad), torch.empty(8, 8, device=device))


def test_the_first_product_of_a_thread_makes_a_workspace_that_stays(gpu: Simulation) -> None:
    product(gpu.device)
    assert torch.cuda.memory_allocated() == WORKSPACE_BYTES
    result = product(gpu.device, requires_grad=True)
    assert torch.cuda.memory_allocated() - WORKSPACE_BYTES == 3 * 512
    result.sum().backward()
    del result
    assert torch.cuda.memory_allocated() == 2 * WORKSPACE_BYTES


def test_a_products_result_comes_before_its_workspace(gpu: Simulation) -> None:
    left, right = torch.empty(8192, 16, device=gpu.device), torch.empty(16, 512, device=gpu.device)
    result = torch.mm(left, right)
    assert [block.requested for block in gpu.allocator.segments.values()][-2:] == [result.nbytes, WORKSPACE_BYTES]


@pytest.mark.parametrize(("card", "config", "expected"), [("h100-80gb", "", 32 * MIB), ("rtx-a6000", ":4096:2", 8 * MIB)])
def test_workspaces_depend_on_the_card_and_the_environment(
    card: str, config: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", config)
    with Simulation(tmp_path / "run.headroom", find_gpu(card)) as simulation:
        product(simulation.device)
        assert torch.cuda.memory_allocated() == expected
        simulation.abandon()


def test_a_workspace_is_recorded_as_one(tmp_path: Path) -> None:
    with Simulation(tmp_path / "run.headroom", find_gpu("rtx-a6000")) as simulation:
        product(simulation.device)
        simulation.step()
    events = read_recording(simulation.path).events.to_pandas()
    assert list(events[events.roles == int(Role.WORKSPACE)].requested_bytes.unique()) == [WORKSPACE_BYTES]


@pytest.mark.parametrize(
    "drop",
    [nn.Dropout(0.1), lambda x: functional.dropout(x, p=0.1), lambda x: torch.dropout(x, 0.1, True)],
    ids=["module", "functional", "torch"],
)
def test_dropout_keeps_a_boolean_mask(drop: nn.Module, gpu: Simulation) -> None:
    tokens = torch.empty(1024, 1024, device=gpu.device, requires_grad=True)
    before = torch.cuda.memory_allocated()
    dropped = drop(tokens)
    assert torch.cuda.memory_allocated() - before == 5 * MIB  # 4 of the result, 1 of the mask
    dropped.sum().backward()
    assert tokens.grad is not None


def test_dropout_in_evaluation_makes_nothing(gpu: Simulation) -> None:
    tokens = torch.empty(1024, 1024, device=gpu.device)
    before = torch.cuda.memory_allocated()
    nn.Dropout(0.1).eval()(tokens)
    assert torch.cuda.max_memory_allocated() == before


def test_layer_norm_keeps_its_statistics_in_float32(gpu: Simulation) -> None:
    tokens = torch.empty(256, 1024, dtype=torch.bfloat16, device=gpu.device, requires_grad=True)
    norm = nn.LayerNorm(1024, dtype=torch.bfloat16, device=gpu.device)
    before = torch.cuda.memory_allocated()
    normed = norm(tokens)
    assert torch.cuda.memory_allocated() - before == 256 * 1024 * 2 + 2 * 256 * 4
    normed.sum().backward()
    assert tokens.grad.dtype is torch.bfloat16


def test_rms_norm_is_one_kernel(gpu: Simulation) -> None:
    tokens = torch.empty(256, 1024, dtype=torch.bfloat16, device=gpu.device, requires_grad=True)
    norm = nn.RMSNorm(1024, dtype=torch.bfloat16, device=gpu.device)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    normed = norm(tokens)
    assert torch.cuda.memory_allocated() - before == 256 * 1024 * 2 + 256 * 4
    assert torch.cuda.max_memory_allocated() == torch.cuda.memory_allocated()
    normed.sum().backward()
    assert (tokens.grad.shape, norm.weight.grad.shape) == ((256, 1024), (1024,))


def test_rms_norm_with_a_weight_of_another_dtype_is_composed(gpu: Simulation) -> None:
    tokens = torch.empty(256, 1024, dtype=torch.bfloat16, device=gpu.device)
    norm = nn.RMSNorm(1024, device=gpu.device)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with pytest.warns(UserWarning, match="Cannot dispatch to fused implementation"):
        norm(tokens)
    assert torch.cuda.max_memory_allocated() - before > 2 * 256 * 1024 * 4


def test_tensors_made_of_numbers_are_on_the_gpu(gpu: Simulation) -> None:
    made = torch.tensor([1.0, 2.0], device=gpu.device, requires_grad=True)
    assert (made.device, made.requires_grad, made.dtype) == (gpu.device, True, torch.float32)
    assert torch.cuda.memory_allocated() == 512
    assert torch.tensor([1.0]).device == torch.device("cpu")


def test_the_allocator_answers_what_a_program_asks_of_torch_cuda(gpu: Simulation) -> None:
    tokens = torch.empty(3 * MIB, dtype=torch.uint8, device=gpu.device)
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved("cuda:0")) == (3 * MIB, 20 * MIB)
    del tokens
    assert (torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated(0)) == (0, 3 * MIB)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    assert (torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()) == (0, 0, 0)
    assert torch.cuda.memory_stats()["allocated_bytes.all.peak"] == 0

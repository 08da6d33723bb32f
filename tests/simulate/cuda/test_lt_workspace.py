"""Products with a bias: cuBLASLt's own workspace, beside that of cuBLAS."""

from __future__ import annotations

import pytest
import torch

from profiler.simulate.session import Simulation

MIB = 1 << 20
CUBLAS_BYTES = 8_519_680


def biased_product(device: torch.device) -> None:
    torch.addmm(torch.empty(8, device=device), torch.empty(8, 8, device=device), torch.empty(8, 8, device=device))


def test_a_product_with_a_bias_makes_both_workspaces_and_keeps_them(gpu: Simulation) -> None:
    biased_product(gpu.device)
    biased_product(gpu.device)
    assert torch.cuda.memory_allocated() == CUBLAS_BYTES + MIB


def test_a_matrix_that_is_added_is_no_bias(gpu: Simulation) -> None:
    matrix = torch.empty(8, 8, device=gpu.device)
    torch.addmm(matrix, matrix, matrix)
    assert torch.cuda.memory_allocated() == CUBLAS_BYTES + 512


@pytest.mark.parametrize(
    ("name", "value", "expected"), [("CUBLASLT_WORKSPACE_SIZE", "4096", 4 * MIB), ("TORCH_CUBLASLT_UNIFIED_WORKSPACE", "1", 0)]
)
def test_the_environment_decides_its_size(gpu: Simulation, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: int) -> None:
    monkeypatch.setenv(name, value)
    biased_product(gpu.device)
    assert torch.cuda.memory_allocated() == CUBLAS_BYTES + expected

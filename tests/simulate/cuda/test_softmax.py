"""Softmax on the GPU: what is fused, and what backward needs beside its result."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from profiler.simulate.session import Simulation

ELEMENTS = 4 * 1024 * 1024
MIB = 1 << 20


def scores(device: torch.device, dtype: torch.dtype, *, requires_grad: bool = False) -> torch.Tensor:
    return torch.empty(4096, ELEMENTS // 4096, dtype=dtype, device=device, requires_grad=requires_grad)


def peak_above(gpu: Simulation, start: int) -> int:
    assert gpu.allocator is not None
    return gpu.allocator.stats.peak_allocated_bytes - start


@pytest.mark.parametrize(("dtype", "expected"), [(torch.float16, 16 * MIB), (torch.bfloat16, 32 * MIB)])
def test_only_float16_is_converted_inside_the_kernel(gpu: Simulation, dtype: torch.dtype, expected: int) -> None:
    given = scores(gpu.device, dtype)
    start = torch.cuda.memory_allocated()
    result = functional.softmax(given, dim=-1, dtype=torch.float32)
    assert result.dtype is torch.float32
    assert result.nbytes == 16 * MIB
    assert peak_above(gpu, start) == expected


@pytest.mark.parametrize("call", [torch.softmax, torch.log_softmax, torch.Tensor.softmax, functional.log_softmax])
def test_every_spelling_is_fused(gpu: Simulation, call: object) -> None:
    given = scores(gpu.device, torch.float16)
    start = torch.cuda.memory_allocated()
    assert callable(call)
    result = call(given, dim=-1, dtype=torch.float32)
    assert peak_above(gpu, start) == result.nbytes


@pytest.mark.parametrize(("operator", "num_scratch"), [(functional.softmax, 1), (functional.log_softmax, 0)])
def test_backward_of_softmax_makes_the_product_of_gradient_and_result(gpu: Simulation, operator: object, num_scratch: int) -> None:
    given = scores(gpu.device, torch.float16, requires_grad=True)
    assert callable(operator)
    result = operator(given, dim=-1, dtype=torch.float32)
    grad = torch.empty_like(result)
    assert gpu.allocator is not None
    gpu.allocator.stats.start_peaks()
    start = torch.cuda.memory_allocated()
    result.backward(grad)
    assert given.grad is not None
    assert given.grad.dtype is torch.float16
    assert peak_above(gpu, start) == 8 * MIB + num_scratch * 16 * MIB
    assert torch.cuda.memory_allocated() == start + 8 * MIB


def test_without_a_dtype_the_inputs_is_kept(gpu: Simulation) -> None:
    assert functional.softmax(scores(gpu.device, torch.float16), dim=-1).dtype is torch.float16

"""What the backward of an embedding holds beside its result on the GPU, counted by hand."""

from __future__ import annotations

import pytest
import torch

from profiler.simulate.session import Simulation

WIDTH = 256
PAGE = 512


def rounded(num_bytes: int) -> int:
    return num_bytes + -num_bytes % PAGE


def scratch_of_backward(gpu: Simulation, num_tokens: int, vocabulary: int, dtype: torch.dtype, transposed: bool = False) -> int:
    weight = torch.empty(vocabulary, WIDTH, dtype=dtype, device=gpu.device, requires_grad=True)
    tokens = torch.zeros(num_tokens, dtype=torch.int64, device=gpu.device)
    result = torch.nn.functional.embedding(tokens, weight)
    gradient = torch.empty(WIDTH, num_tokens, dtype=dtype, device=gpu.device).t() if transposed else torch.empty_like(result)
    start = torch.cuda.memory_allocated()
    result.backward(gradient)
    return torch.cuda.max_memory_allocated() - start - weight.nbytes


def test_up_to_3072_tokens_are_added_in_place(gpu: Simulation) -> None:
    assert scratch_of_backward(gpu, 3072, 8192, torch.float32) == 0


def test_a_gradient_that_does_not_lie_in_one_piece_is_copied(gpu: Simulation) -> None:
    assert scratch_of_backward(gpu, 3072, 8192, torch.bfloat16, transposed=True) == 3072 * WIDTH * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("vocabulary", "segments"), [(1000, 1000), (8192, 4096)])
def test_more_tokens_are_sorted_and_summed_in_parts_of_ten_in_float32(
    gpu: Simulation, vocabulary: int, segments: int, dtype: torch.dtype
) -> None:
    num_tokens = 4096
    parts = 409 + segments
    by_token, by_segment = 3 * rounded(8 * num_tokens), 2 * rounded(8 * segments)
    expected = by_token + by_segment + rounded(8 * parts) + 2 * PAGE + rounded(parts * WIDTH * 4)
    assert scratch_of_backward(gpu, num_tokens, vocabulary, dtype) == expected

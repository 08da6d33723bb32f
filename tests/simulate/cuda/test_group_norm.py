"""Group norm's scratch on the GPU, counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from profiler.simulate.session import Simulation

ROWS, CHANNELS, GROUPS, LENGTH = 4, 1024, 128, 512
BY_CHANNEL, BY_GROUP = 4 * ROWS * CHANNELS, 4 * ROWS * GROUPS


@pytest.mark.parametrize(
    ("dtype", "statistics", "accumulated"),
    [(torch.float32, 2 * BY_GROUP, 0), (torch.bfloat16, BY_GROUP, 2 * BY_GROUP)],
)
def test_forward_holds_a_scale_and_a_shift_of_every_channel(gpu: Simulation, dtype: torch.dtype, statistics: int, accumulated: int) -> None:
    layer = nn.GroupNorm(GROUPS, CHANNELS).to(gpu.device, dtype)
    x = torch.empty(ROWS, CHANNELS, LENGTH, dtype=dtype, device=gpu.device)
    start = torch.cuda.memory_allocated()
    result = layer(x)
    assert torch.cuda.max_memory_allocated() - start == result.nbytes + statistics + accumulated + 2 * BY_CHANNEL


def test_backward_holds_three_numbers_of_every_channel_and_two_of_every_group(gpu: Simulation) -> None:
    layer = nn.GroupNorm(GROUPS, CHANNELS).to(gpu.device)
    x = torch.empty(ROWS, CHANNELS, LENGTH, device=gpu.device, requires_grad=True)
    result = layer(x)
    gradient = torch.empty_like(result)
    start = torch.cuda.memory_allocated()
    result.backward(gradient)
    parameters = 2 * 4 * CHANNELS
    assert torch.cuda.max_memory_allocated() - start == x.nbytes + parameters + 3 * BY_CHANNEL + 2 * BY_GROUP


def test_backward_without_a_weight_needs_no_factor_of_each_channel(gpu: Simulation) -> None:
    layer = nn.GroupNorm(GROUPS, CHANNELS, affine=False)
    x = torch.empty(ROWS, CHANNELS, LENGTH, device=gpu.device, requires_grad=True)
    result = layer(x)
    gradient = torch.empty_like(result)
    start = torch.cuda.memory_allocated()
    result.backward(gradient)
    assert torch.cuda.max_memory_allocated() - start == x.nbytes + 2 * BY_CHANNEL + 2 * BY_GROUP


def test_one_number_a_channel_is_normalized_without_sums_by_channel(gpu: Simulation) -> None:
    layer = nn.GroupNorm(GROUPS, CHANNELS).to(gpu.device)
    x = torch.empty(ROWS, CHANNELS, device=gpu.device, requires_grad=True)
    start = torch.cuda.memory_allocated()
    result = layer(x)
    assert torch.cuda.max_memory_allocated() - start == result.nbytes + 2 * BY_GROUP
    gradient = torch.empty_like(result)
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    result.backward(gradient)
    assert torch.cuda.max_memory_allocated() - start == x.nbytes + 2 * 4 * CHANNELS + 2 * BY_GROUP

"""Group norm on the GPU: its kernels keep sums by channel and by group beside their results while they run.

Read in torch 2.13: GroupNormKernelImplInternal and GroupNormBackwardKernelImplInternal (ATen/native/cuda/group_norm_kernel.cu),
native_group_norm and native_group_norm_backward (ATen/native/group_norm.cpp), which make the results first.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from profiler.simulate.cuda.kernels import KERNELS, KernelCall

_aten = torch.ops.aten


def _native_group_norm(call: KernelCall) -> Any:
    """Hold float32 statistics of half inputs, and a scale and a shift for every channel, for what is more than one number a channel."""
    x, weight, bias, num_rows, num_channels, size, num_groups, _ = call.args
    result = call.keep(call.run())
    itemsize = max(x.dtype.itemsize, 4)
    needed = [num_rows * num_groups] * 2 if x.dtype.itemsize < itemsize else []
    if size > 1 and not (weight is None and bias is None):
        needed += [num_rows * num_channels] * 2
    _hold_while_running(call, [itemsize * count for count in needed])
    return result


def _native_group_norm_backward(call: KernelCall) -> Any:
    """Hold the sums of each channel, two factors of each group, and one of each channel where there is a weight."""
    _, x, _, _, weight, num_rows, num_channels, size, num_groups, (needs_input, _, _) = call.args
    result = call.keep(call.run())
    needed = [num_rows * num_channels] * 2 if size > 1 else []
    if needs_input:
        needed += [num_rows * num_groups] * 2
        needed += [num_rows * num_channels] if weight is not None and size > 1 else []
    _hold_while_running(call, [max(x.dtype.itemsize, 4) * count for count in needed])
    return result


def _hold_while_running(call: KernelCall, sizes: list[int]) -> None:
    with ExitStack() as running:
        for num_bytes in sizes:
            running.enter_context(call.scratch(num_bytes))


KERNELS[_aten.native_group_norm.default] = _native_group_norm
KERNELS[_aten.native_group_norm_backward.default] = _native_group_norm_backward

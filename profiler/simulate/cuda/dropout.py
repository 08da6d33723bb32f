"""Dropout on the GPU: one fused kernel with a boolean mask, where the CPU multiplies with a mask of the input's dtype.

Read in torch 2.13: at::dropout (ATen/native/Dropout.cpp) and dropout_cuda (ATen/native/cuda/Dropout.cu).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from profiler.devices import Gpu
from profiler.simulate.cuda.functions import FUNCTIONS
from profiler.simulate.cuda.kernels import KERNELS, KernelCall


def _dropout(_gpu: Gpu, _func: Any, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if training and not inplace and 0 < p < 1 and input.numel() > 0:
        return torch.native_dropout(input, p, True)[0]
    return functional.dropout(input, p, training, inplace)


def _native_dropout(call: KernelCall) -> Any:
    """Allocate the mask first."""
    result, mask = call.run()
    call.keep(mask)
    return result, mask


FUNCTIONS[functional.dropout] = _dropout
FUNCTIONS[torch.dropout] = lambda gpu, func, input, p, train: _dropout(gpu, func, input, p, train)
KERNELS[torch.ops.aten.native_dropout.default] = _native_dropout

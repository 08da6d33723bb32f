"""Normalization on the GPU: statistics in float32 whatever the input's dtype, and RMS norm as one fused kernel.

Read in torch 2.13: layer_norm_cuda and rms_norm_cuda (ATen/native/cuda/layer_norm_kernel.cu), rms_norm_symint (ATen/native/layer_norm.cpp).
The CPU keeps layer norm's statistics in the input's dtype, and composes RMS norm of elementwise operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from profiler.devices import Gpu
from profiler.simulate.cuda.functions import FUNCTIONS
from profiler.simulate.cuda.kernels import KERNELS, KernelCall

_aten = torch.ops.aten


def _native_layer_norm(call: KernelCall) -> Any:
    out, mean, rstd = call.run()
    return out, _in_float32(mean), _in_float32(rstd)


def _in_float32(statistic: Tensor) -> Tensor:
    return statistic if statistic.dtype.itemsize >= 4 else torch.empty_like(statistic, dtype=torch.float32)


def _rms_norm(
    _gpu: Gpu, func: Any, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Normalize by one kernel; a weight of another dtype is the one case in which CUDA composes it too."""
    if weight is not None and weight.dtype is not input.dtype:
        result: Tensor = func(input, normalized_shape, weight, eps)
        return result
    fused: Tensor = _FusedRmsNorm.apply(input, tuple(normalized_shape), weight, eps)  # type: ignore[no-untyped-call]
    return fused


class _FusedRmsNorm(torch.autograd.Function):
    """Torch's own function is split into elementwise operators above autograd on every device but CUDA."""

    @staticmethod
    def forward(context: Any, input: Tensor, shape: tuple[int, ...], weight: Tensor | None, eps: float | None) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            out, rstd = _aten._fused_rms_norm.default(input, shape, weight, eps)
        context.save_for_backward(input, rstd, weight)
        context.shape = shape
        result: Tensor = out
        return result

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        input, rstd, weight = context.saved_tensors
        needed = [context.needs_input_grad[0], context.needs_input_grad[2]]
        grad_input, grad_weight = _aten._fused_rms_norm_backward.default(grad.contiguous(), input, context.shape, rstd, weight, needed)
        return grad_input, None, grad_weight, None


FUNCTIONS[functional.rms_norm] = _rms_norm
FUNCTIONS[torch.rms_norm] = _rms_norm
KERNELS[_aten.native_layer_norm.default] = _native_layer_norm
# Nothing beside its results, but torch has no fake kernel and would compose it.
KERNELS[_aten._fused_rms_norm.default] = lambda call: call.run()

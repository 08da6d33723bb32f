"""Softmax on the GPU: one kernel from float16 to float32, and backward's product of gradient and result.

Read in torch 2.13: softmax and log_softmax (ATen/native/SoftMax.cpp), softmax_backward_cuda_out (ATen/native/cuda/SoftMax.cu). The fused
conversion exists for float16 alone; bfloat16 is converted first, as on the CPU. Backward of log-softmax needs no such product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from profiler.devices import Gpu
from profiler.simulate.cuda.functions import FUNCTIONS
from profiler.simulate.cuda.kernels import KERNELS, KernelCall

_aten = torch.ops.aten


def _is_fused(input: Tensor, dtype: torch.dtype | None) -> bool:
    return input.dtype is torch.float16 and dtype is torch.float32


def _functional(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the answer to torch.nn.functional's form of an operator."""

    def answer(
        _gpu: Gpu, func: Any, input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
    ) -> Tensor:
        if dim is not None and _is_fused(input, dtype):
            return operator(input, dim, True)
        result: Tensor = func(input, dim, _stacklevel + 1, dtype)
        return result

    return answer


def _method(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the answer to an operator as a function of torch or a method of tensors."""

    def answer(_gpu: Gpu, func: Any, input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
        if _is_fused(input, dtype):
            return operator(input, dim, True)
        result: Tensor = func(input, dim, dtype=dtype)
        return result

    return answer


def _softmax_backward(call: KernelCall) -> Any:
    """Allocate the result, then the product of the gradient and softmax's output, in the dtype of these two."""
    grad, output = call.args[:2]
    result = call.keep(call.run())
    with call.scratch(grad.numel() * torch.promote_types(grad.dtype, output.dtype).itemsize):
        return result


for _name, _operator in (("softmax", torch._softmax), ("log_softmax", torch._log_softmax)):
    FUNCTIONS[getattr(functional, _name)] = _functional(_operator)
    FUNCTIONS[getattr(torch, _name)] = FUNCTIONS[getattr(Tensor, _name)] = _method(_operator)
KERNELS[_aten._softmax_backward_data.default] = _softmax_backward

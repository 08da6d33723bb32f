"""Products of 8-bit integers as torchao multiplies them on a GPU; on fake tensors it would take a CPU's way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from profiler.simulate.memory import GPU_DEVICE

_USER = "torchao.quantization.quantize_.workflows.int8.int8_tensor"
_MIN_ROWS = 17
"""Of cuBLAS's integer product (ATen/native/cuda/Blas.cpp, _int_mm_out_cuda)."""
_MULTIPLE = 8
"""Of inner size and columns, there too."""


@contextmanager
def answered_as_on_a_gpu() -> Iterator[None]:
    """Let torchao's scaled products take a GPU's way in the block, where torchao was imported before."""
    module: Any = sys.modules.get(_USER)
    if module is None:
        yield
        return
    on_cpu = module.int_scaled_matmul

    def int_scaled_matmul(a: Tensor, b: Tensor, scales: Tensor) -> Tensor:
        if a.device != GPU_DEVICE:
            made: Tensor = on_cpu(a, b, scales)
            return made
        return _product(a, b) * scales.expand(a.shape[0], b.shape[1])

    with patch.object(module, "int_scaled_matmul", int_scaled_matmul):
        yield


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return a product of int8 matrices, int32, by the ways of ``torchao.kernel.intmm.safe_int_mm`` (0.18)."""
    if a.shape[1] % _MULTIPLE or b.shape[1] % _MULTIPLE:
        return torch.matmul(a.cpu().to(torch.int32), b.cpu().to(torch.int32)).to(a.device)
    b = b if b.is_contiguous() else b.contiguous()
    if a.shape[0] < _MIN_ROWS:  # cuBLAS refuses, and the product is made of copies in float32
        return torch.matmul(a.to(torch.float32), b.to(torch.float32)).to(torch.int32)
    return torch._int_mm(a, b)

"""Backward of an embedding on the GPU: few tokens are added up in place; more are sorted, and summed in parts in float32.

Read in torch 2.13: embedding_dense_backward_cuda (ATen/native/cuda/Embedding.cu) and embedding_backward_cuda_kernel
(ATen/native/cuda/EmbeddingBackwardKernel.cu). What the sort itself needs is gone before the sums, which are larger, and left out.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from profiler.simulate.cuda.kernels import KERNELS, KernelCall

_MOST_UNSORTED = 3072
_ROWS_PER_PART = 10
_COUNT_BYTES = 8


def _embedding_dense_backward(call: KernelCall) -> Any:
    grad, indices, num_weights, _, by_frequency = call.args
    num_indices, index_bytes = indices.numel(), indices.dtype.itemsize
    with ExitStack() as running:

        def hold(num_bytes: int) -> None:
            running.enter_context(call.scratch(num_bytes))

        if not grad.is_contiguous():
            hold(grad.numel() * grad.dtype.itemsize)
        if num_indices <= _MOST_UNSORTED and not by_frequency:
            return call.keep(call.run())
        for _ in range(3 if by_frequency else 2):  # sorted, where they were, and how often
            hold(num_indices * index_bytes)
        result = call.keep(call.run())
        most_segments = min(num_indices, num_weights)
        most_parts = num_indices // _ROWS_PER_PART + most_segments
        for count in (num_indices, most_segments, most_segments, most_parts):
            hold(count * index_bytes)
        for _ in range(2):
            hold(_COUNT_BYTES)
        hold(most_parts * grad.shape[-1] * max(grad.dtype.itemsize, 4))
        return result


KERNELS[torch.ops.aten.embedding_dense_backward.default] = _embedding_dense_backward

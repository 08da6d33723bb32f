"""Torch's fused cross-entropy on fake tensors: operator by operator, where torch would only say what comes out.

``torch.nn.functional.linear_cross_entropy`` is one custom operator whose body is Python. Given fake tensors torch skips the body, and with
it the logits of a chunk and every copy that it makes (torch 2.13, torch/nn/modules/linear_cross_entropy.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.modules import linear_cross_entropy as torchs

_KEEPS_GRAPH = 11
"""Place of the argument that only backward wants."""


class _OperatorByOperator(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        outputs = torchs._linear_cross_entropy_batch_chunked_accumulator(*inputs[:_KEEPS_GRAPH], *inputs[_KEEPS_GRAPH + 1 :])
        torchs._linear_cross_entropy_batch_chunked_setup_context(ctx, inputs, outputs)  # type: ignore[no-untyped-call]
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return torchs._linear_cross_entropy_batch_chunked_backward(ctx, *gradients)  # type: ignore[no-untyped-call]


def batch_chunked(*inputs: Any) -> Any:
    """Do what ``torch_nn::_linear_cross_entropy_batch_chunked`` does, with its arguments."""
    return _OperatorByOperator.apply(*inputs)  # type: ignore[no-untyped-call]

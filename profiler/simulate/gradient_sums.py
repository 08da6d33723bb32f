"""Sums of gradients that the autograd engine makes where a tensor was used more than once: in place, as with real tensors.

The engine adds into the gradient that it holds if nobody else holds it, but never into one of a tensor subclass, and fake tensors are of
one (torch/csrc/autograd/input_buffer.cpp, accumulate and can_accumulate_inplace, torch 2.13). Without this, every such sum would take a
third tensor of its size for a moment.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

_ADD = torch.ops.aten.add.Tensor
_ADD_IN_PLACE = torch.ops.aten.add_.Tensor
_ENGINE = torch.autograd.graph._engine_run_backward.__code__
_FRAMES_TO_CALLER = 2
_TENSOR_USES = 4
"""C++ references to a gradient that only the engine holds, while an operator on it is dispatched to Python."""
_STORAGE_USES = 2
"""Of its storage: the tensor, and the Python object that asks."""


def in_place_sum(func: Any, args: tuple[Any, ...]) -> Any:
    """Return the operator to run instead of ``func``; to be called by ``__torch_dispatch__`` itself, which the engine calls.

    Args:
        func: the operator.
        args: its arguments.
    """
    if func is not _ADD or torch._C._current_graph_task_id() == -1 or torch.is_grad_enabled():
        return func
    if sys._getframe(_FRAMES_TO_CALLER).f_code is not _ENGINE:
        return func  # Python code of a custom function, or a forward that is run again
    held, other = args[0], args[1]
    if not isinstance(other, torch.Tensor) or held.shape != other.shape or held.dtype != other.dtype:
        return func
    return _ADD_IN_PLACE if _is_only_the_engines(held) else func


def _is_only_the_engines(tensor: torch.Tensor) -> bool:
    uses = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return tensor._use_count() <= _TENSOR_USES and uses <= _STORAGE_USES and torch.ops.aten.is_non_overlapping_and_dense(tensor)  # type: ignore[attr-defined]

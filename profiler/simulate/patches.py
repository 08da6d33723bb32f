"""What libraries do differently when they meet fake tensors, put back to what they do with real ones.

Each patch is one function with its reason; `in_place` applies all for as long as a simulation runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

_Convert = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def in_place() -> Iterator[None]:
    """Apply every patch in the block."""
    with ExitStack() as stack:
        for target in ("transformers.masking_utils.is_tracing", "transformers.modeling_utils.is_tracing"):
            # transformers takes fake tensors for a graph capture and then makes masks that it would skip.
            stack.enter_context(patch(target, _is_not_tracing))
        # nn.Module swaps the tensors of fake parameters, which fails as soon as anything refers to them weakly.
        stack.enter_context(patch.object(nn.Module, "_apply", _apply))
        yield


def _is_not_tracing(tensor: Any = None) -> bool:
    return False


def _apply(module: nn.Module, convert: _Convert, recurse: bool = True) -> nn.Module:
    """Do what ``nn.Module._apply`` does with real tensors: the parameter stays the same object and gets new data."""
    if recurse:
        for child in module.children():
            child._apply(convert)  # type: ignore[no-untyped-call]
    for parameter in module._parameters.values():
        if parameter is None:
            continue
        with torch.no_grad():
            _set_data(parameter, convert(parameter))
            if parameter.grad is not None:
                _set_data(parameter.grad, convert(parameter.grad))
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = convert(buffer)
    return module


def _set_data(tensor: torch.Tensor, value: torch.Tensor) -> None:
    tensor.data = value
    if isinstance(tensor, FakeTensor) and isinstance(value, FakeTensor):
        tensor.fake_device = value.fake_device  # ``.data =`` changes what C++ knows; a fake tensor's device is Python's

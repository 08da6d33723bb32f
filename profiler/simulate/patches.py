"""What libraries do differently when they meet fake tensors, put back to what they do with real ones.

Each patch is one function with its reason; `in_place` applies all for as long as a simulation runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional
from torch.nn.modules import linear_cross_entropy

from profiler.simulate.cuda.autocast import keeps_casts_in_inference
from profiler.simulate.cuda.integer_products import answered_as_on_a_gpu
from profiler.simulate.fused_loss import batch_chunked
from profiler.simulate.refusals import refuse_compile

_REAL_LINEAR = functional.linear
_Convert = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def in_place() -> Iterator[None]:
    """Apply every patch in the block."""
    with ExitStack() as stack:
        for target in ("transformers.masking_utils.is_tracing", "transformers.modeling_utils.is_tracing"):
            # transformers takes fake tensors for a graph capture and then makes masks that it would skip.
            stack.enter_context(patch(target, _is_not_tracing))
        for target in ("torch.autograd.has_torch_function", "torch.nn.functional.has_torch_function"):
            # torch leaves function modes in what they have been told of; what backward and attention modules call is the GPU's, too.
            stack.enter_context(patch(target, _is_not_overridden))
        # nn.Module swaps the tensors of fake parameters, which fails as soon as anything refers to them weakly.
        stack.enter_context(patch.object(nn.Module, "_apply", _apply))
        stack.enter_context(patch.object(functional, "linear", _linear))
        stack.enter_context(patch.object(torch, "compile", refuse_compile))
        # Inference mode hands composite operators to Python whole; without gradients they are taken apart as usual, and memory is the same.
        stack.enter_context(patch.object(torch, "inference_mode", _without_gradients))
        # What a program reads from a tensor without values is one, which a scaler of gradients would take for an overflow.
        stack.enter_context(patch.object(torch.amp.GradScaler, "_maybe_opt_step", _step))
        stack.enter_context(answered_as_on_a_gpu())
        # Of an operator whose body is Python, torch runs nothing on fake tensors.
        stack.enter_context(patch.object(linear_cross_entropy, "_linear_cross_entropy_batch_chunked", batch_chunked))
        # C++ asks before every call whether a library wants to answer it in a mode's place; none does for modes that are ours.
        stack.enter_context(patch("torch._library.simple_registry.find_torch_dispatch_rule", _no_rule))
        yield


def _no_rule(operator: Any, mode: type) -> None:
    return None


def _is_not_tracing(tensor: Any = None) -> bool:
    return False


def _is_not_overridden(tensors: Any) -> bool:
    return False


def _without_gradients(mode: Any = True) -> Any:
    """Stand in for ``torch.inference_mode``, called or as a decorator."""
    if callable(mode):
        return _inference()(mode)
    return _inference() if mode else nullcontext()


@contextmanager
def _inference() -> Iterator[None]:
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(kept and keeps_casts_in_inference())
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(kept)


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


def _linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Add the bias in place where torch does: with tensor subclasses, as fake tensors are, it would not (ATen/native/Linear.cpp)."""
    if bias is None or inputs.dim() == 2 or (inputs.dim() == 3 and inputs.is_contiguous()):  # in one product
        return _REAL_LINEAR(inputs, weight, bias)
    return _REAL_LINEAR(inputs, weight).add_(bias)


def _step(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer, state: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Do what ``GradScaler`` does where no gradient overflowed."""
    return optimizer.step(*args, **kwargs)


def _set_data(tensor: torch.Tensor, value: torch.Tensor) -> None:
    tensor.data = value
    if isinstance(tensor, FakeTensor) and isinstance(value, FakeTensor):
        tensor.fake_device = value.fake_device  # ``.data =`` changes what C++ knows; a fake tensor's device is Python's

"""``linear_cross_entropy`` on the GPU: torch chooses chunks and precision by the kind of device, and multiplies into float32 directly.

Read in torch 2.13, torch/nn/modules/linear_cross_entropy.py and linear_cross_entropy_options.py. Both ask whether the device is of type
cuda, which fake tensors of the GPU cannot be.
"""

from __future__ import annotations

import types
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions, functional
from torch.nn.modules.linear_cross_entropy import _ChunkContext

from profiler.devices import Gpu
from profiler.simulate.cuda.functions import FUNCTIONS

_adjust: Any = LinearCrossEntropyOptions._adjust
_CUDA, _FAKE = "cuda", "cpu"
"""What torch's code looks for, and of what type a fake tensor's device is."""


def _for_fakes(method: Any) -> Any:
    """Return a class method's code that takes the type of fake tensors' device for CUDA's."""
    function = method.__func__
    constants = tuple(_FAKE if constant == _CUDA else constant for constant in function.__code__.co_consts)
    code = function.__code__.replace(co_consts=constants)
    return classmethod(types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__))


_build: Any = _for_fakes(_ChunkContext.build)


def _linear_cross_entropy(gpu: Gpu, func: Any, *args: Any, **kwargs: Any) -> Tensor:
    def adjust(options: Any, device: Any = None, **call: Any) -> Any:
        return _adjust(options, device=torch.device(_CUDA), **call)

    with ExitStack() as stack:
        stack.enter_context(patch.object(_ChunkContext, "build", _build))
        stack.enter_context(patch.object(LinearCrossEntropyOptions, "_adjust", adjust))
        stack.enter_context(patch.object(torch.cuda, "is_available", lambda: True))
        stack.enter_context(patch.object(torch.cuda, "get_device_capability", lambda *_: gpu.compute_capability))
        result: Tensor = func(*args, **kwargs)
        return result


FUNCTIONS[functional.linear_cross_entropy] = _linear_cross_entropy

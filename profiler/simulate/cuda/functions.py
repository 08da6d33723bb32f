"""Calls above autograd that CUDA answers with other operators than the CPU does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from profiler.devices import Gpu
from profiler.simulate.cuda.autocast import CudaAutocast

Function = Callable[..., Any]
"""Called with the card, the function that was called, its arguments and its keyword arguments."""

FUNCTIONS: dict[Any, Function] = {}
"""By the torch function that they stand in for; filled by the modules beside this one."""


class CudaFunctions(TorchFunctionMode):
    """Answers calls on tensors of the simulated GPU as CUDA would.

    Args:
        gpu: the card.
        device: where its fake tensors live.
        autocast: casts their arguments, in its regions.
    """

    def __init__(self, gpu: Gpu, device: torch.device, autocast: CudaAutocast) -> None:
        super().__init__()
        self._gpu = gpu
        self._device = device
        self._autocast = autocast

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.backward:
            with self:  # torch has left this mode, but what checkpoints compute again is CUDA's, too
                return _backward(*args, **kwargs)
        answer = FUNCTIONS.get(func)
        if answer is not None and self._is_for_gpu(args, kwargs):
            return self._autocast.call(func.__name__, partial(answer, self._gpu, func), args, kwargs)
        return func(*args, **kwargs)

    def _is_for_gpu(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether a call's first tensor is on the GPU, or its result shall be."""
        first = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
        device = kwargs.get("device")
        return (first is not None and first.device == self._device) or (device is not None and torch.device(device) == self._device)


def _backward(
    tensor: torch.Tensor, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
) -> None:
    torch.autograd.backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)

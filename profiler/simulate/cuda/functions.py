"""Calls above autograd that CUDA answers with other operators than the CPU does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from profiler.devices import Gpu

Function = Callable[..., Any]
"""Called with the card, the function that was called, its arguments and its keyword arguments."""

FUNCTIONS: dict[Any, Function] = {}
"""By the torch function that they stand in for; filled by the modules beside this one."""


class CudaFunctions(TorchFunctionMode):
    """Answers calls on tensors of the simulated GPU as CUDA would.

    Args:
        gpu: the card.
        device: where its fake tensors live.
    """

    def __init__(self, gpu: Gpu, device: torch.device) -> None:
        super().__init__()
        self._gpu = gpu
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        answer = FUNCTIONS.get(func)
        if answer is not None and args and isinstance(args[0], torch.Tensor) and args[0].device == self._device:
            return answer(self._gpu, func, *args, **kwargs)
        return func(*args, **kwargs)

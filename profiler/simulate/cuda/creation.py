"""``torch.tensor`` on the GPU: made of numbers on the host, then copied; fake tensors would stay on the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from profiler.devices import Gpu
from profiler.simulate.cuda.functions import FUNCTIONS


def _from_numbers(_gpu: Gpu, func: Any, data: Any, *, device: Any = None, requires_grad: bool = False, **options: Any) -> Tensor:
    if device is None:
        return func(data, **options, requires_grad=requires_grad)  # type: ignore[no-any-return]
    with torch._C._DisableTorchDispatch():
        read: Tensor = func(data, **options)  # real, and only looked at: to make a fake of it takes torch long
    made = torch.empty(read.shape, dtype=read.dtype, device="cpu")
    moved = torch.empty(read.shape, dtype=made.dtype, device=device)  # `to` keeps a constant on the host
    return moved.requires_grad_() if requires_grad else moved


FUNCTIONS[torch.tensor] = _from_numbers

"""``torch.tensor`` on the GPU: made of numbers on the host, then copied; fake tensors would stay on the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from profiler.devices import Gpu
from profiler.simulate.cuda.functions import FUNCTIONS


def _from_numbers(_gpu: Gpu, func: Any, data: Any, *, device: Any = None, requires_grad: bool = False, **options: Any) -> Tensor:
    made: Tensor = func(data, **options)
    moved = made if device is None else torch.empty(made.shape, dtype=made.dtype, device=device)  # `to` keeps a constant on the host
    return moved.requires_grad_() if requires_grad else moved


FUNCTIONS[torch.tensor] = _from_numbers

"""Compiled functions that libraries bring -> what their kernels allocate on a GPU. Whatever else is compiled is refused.

What is allocated was read in the programs that the Inductor of torch 2.13 writes for such a function and a card of compute capability 8.0,
with float32 and with bfloat16 parameters. No run on a card has confirmed it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from profiler.simulate.refusals import refuse_compile


def compiled(function: Any = None, **options: Any) -> Callable[..., None]:
    """Stand in for ``torch.compile``.

    Raises:
        SimulationUnsupported: what its kernels allocate is not known.
    """
    kernel = _KERNELS.get(f"{getattr(function, '__module__', None)}.{getattr(function, '__qualname__', None)}")
    return refuse_compile() if kernel is None else kernel


def _torchao_adam(parameter: Tensor, gradient: Tensor, step: Tensor, *states_and_options: Any) -> None:
    """Update a parameter and its states in place, after the new scales are known.

    A map of codes is looked up at other places than those that a scale is computed from, so Inductor reduces first and keeps the scaled
    states in float32 between its kernels; two 4-bit codes that share a byte come from different places again, so they are kept in int64.
    States that are not quantized need nothing. torchao's README measured Llama-2-7B with 4 bits under an older torch: too little for int64.
    """
    states = [state for state in states_and_options if hasattr(state, "scale")]
    made = [torch.empty_like(state.scale) for state in states]
    made += [torch.empty_like(parameter, dtype=torch.float32) for state in states if hasattr(state, "qmap")]
    made += [torch.empty_like(parameter, dtype=torch.int64) for state in states if state.codes.numel() < parameter.numel()]
    parameter.add_(gradient)
    del made


_KERNELS: Mapping[str, Callable[..., None]] = {"torchao.optim.adam.single_param_adam": _torchao_adam}

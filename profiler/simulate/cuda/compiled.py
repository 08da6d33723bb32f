"""Compiled functions that libraries bring -> what their kernels allocate on a GPU. Whatever else is compiled is refused."""

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
    """Update a parameter and its states in one kernel, in place; the new scales are made before they replace the old ones."""
    scales = [torch.empty_like(state.scale) for state in states_and_options if hasattr(state, "scale")]
    parameter.add_(gradient)
    del scales


_KERNELS: Mapping[str, Callable[..., None]] = {"torchao.optim.adam.single_param_adam": _torchao_adam}

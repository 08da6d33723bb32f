"""An optimizer that updates float32 copies of 16-bit parameters. Needs torch; for workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer


class MasterOptimizer(Optimizer):
    """Copies gradients to float32, lets another optimizer step there, and copies the result back.

    Parameters that are float32 already have no copy. What is alive in which order is as in Megatron-LM's Float16OptimizerWithFloat16Params
    or, where gradients are kept, in DeepSpeed's FP16_UnfusedOptimizer.

    Args:
        parameters: of the model.
        make: makes the optimizer of the float32 ones.
        keeps_gradients: keep the 16-bit gradients until zero_grad, and the float32 ones until the step's end; else the other way round.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], make: Callable[[Iterable[nn.Parameter]], Optimizer], *, keeps_gradients: bool
    ) -> None:
        given = list(parameters)
        self._masters = {parameter: _master(parameter) for parameter in given if parameter.dtype != torch.float32}
        self._keeps_gradients = keeps_gradients
        self._inner = make([self._masters.get(parameter, parameter) for parameter in given])
        super().__init__([{"params": group["params"]} for group in self._inner.param_groups], {})
        self.state = self._inner.state

    @property
    def num_masters(self) -> int:
        """How many parameters have a copy."""
        return len(self._masters)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the copies, then the parameters."""
        for parameter, master in self._masters.items():
            if parameter.grad is not None:
                master.grad = parameter.grad.float()
                if not self._keeps_gradients:
                    parameter.grad = None
        self._inner.step()
        for parameter, master in self._masters.items():
            if self._keeps_gradients:
                master.grad = None
            parameter.copy_(master)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of copies and parameters, or fill them with zeros."""
        self._inner.zero_grad(set_to_none)
        for parameter in self._masters:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()


def _master(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().float())

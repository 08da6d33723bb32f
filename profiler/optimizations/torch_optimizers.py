"""Optimizers that torch.optim has not, as torch optimizers: Lion, Muon with AdamW beside it, paged 8-bit AdamW, updates in backward.

Needs torch; for workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from profiler.optimizations.quantized_optimizers import MIN_QUANTIZED_NUMBERS

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]

PAGED_BLOCK = 256
"""Numbers that share a scale (bitsandbytes 0.50, optim/optimizer.py)."""
MIN_PAGED_NUMBERS = 100_000
"""States of fewer numbers stay on the GPU (the same file, ``get_state_buffer``)."""


class Lion(Optimizer):
    """Sign of a mix of momentum and gradient (Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2)."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (mix, keep) = self.state[parameter], group["betas"]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(state["exp_avg"].mul(mix).add_(gradient, alpha=1 - mix).sign_(), alpha=-group["lr"])
        state["exp_avg"].mul_(keep).add_(gradient, alpha=1 - keep)


class Several(Optimizer):
    """Optimizers of disjoint parameters that step one after another, as one; each keeps its own state."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = optimizers
        parameters = [parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]]
        super().__init__(parameters, {})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Let each step."""
        for optimizer in self.optimizers:
            optimizer.step()


def muon_and_adamw(
    parameters: Iterable[nn.Parameter], is_hidden: Callable[[nn.Parameter], bool], muon: dict[str, Any], adamw: dict[str, Any]
) -> Optimizer:
    """Return Muon for hidden matrices and AdamW for all else.

    Args:
        parameters: what is trained.
        is_hidden: tells whether a matrix is neither embedding nor output layer.
        muon: keyword arguments of torch.optim.Muon.
        adamw: keyword arguments of torch.optim.AdamW.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in parameters:
        (matrices if parameter.dim() == 2 and is_hidden(parameter) else others).append(parameter)
    return Several([*([Muon(matrices, **muon)] if matrices else []), *([AdamW(others, **adamw)] if others else [])])


class PagedAdamW8bit(Optimizer):
    """What bitsandbytes' PagedAdamW8bit keeps, for simulation only: no value is computed.

    8-bit codes are in memory that GPU and host share, which the caching allocator never sees: here, on the host. Their scales, and all
    of small parameters, are on the GPU. One kernel a parameter updates everything in place.

    Args:
        parameters: what is trained.
        block: numbers that share a scale; 2048 before bitsandbytes 0.44.
        min_paged_numbers: states of fewer numbers stay on the GPU; infinite for AdamW8bit, which pages none.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, block: int = PAGED_BLOCK, min_paged_numbers: float = MIN_PAGED_NUMBERS
    ) -> None:
        super().__init__(parameters, {})
        self._block, self._min_paged_numbers = block, min_paged_numbers
        self._maps: list[Tensor] = []

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make the state of parameters that have none, and write to the parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if not self.state[parameter]:
                    self._make_state(parameter)
                parameter.add_(parameter.grad)

    def _make_state(self, parameter: Tensor) -> None:
        state, quantized = self.state[parameter], parameter.numel() >= MIN_QUANTIZED_NUMBERS
        if quantized and not self._maps:
            self._maps = [torch.empty(256, device=parameter.device) for _ in range(2)]  # what the codes stand for, once
        dtype = torch.uint8 if quantized else torch.float32
        device = "cpu" if parameter.numel() >= self._min_paged_numbers else parameter.device
        for name in ("state1", "state2"):
            state[name] = torch.zeros_like(parameter, dtype=dtype, device=device)
        if quantized:
            for number, codes in enumerate(self._maps, start=1):
                state[f"qmap{number}"] = codes
                state[f"absmax{number}"] = torch.zeros(-(-parameter.numel() // self._block), device=parameter.device)


class UpdatesInBackward:
    """Updates each parameter as soon as its gradient is whole, and lets the gradient go.

    Args:
        make: makes the optimizer of one parameter.
    """

    def __init__(self, make: MakeOptimizer) -> None:
        self._make = make
        self._made: Several | None = None

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Return an optimizer a parameter, as one that has nothing left to do after backward."""
        self._made = _Stepped([self._make([parameter]) for parameter in parameters])
        return self._made

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Update in the block; hooks that were there before see each gradient first."""
        made, self._made = self._made, None
        with ExitStack() as stack:
            for optimizer in () if made is None else made.optimizers:
                for parameter in optimizer.param_groups[0]["params"]:
                    stack.callback(parameter.register_post_accumulate_grad_hook(_update(optimizer)).remove)
            yield


class _Stepped(Several):
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do nothing: all have stepped in backward."""


def _update(optimizer: Optimizer) -> Callable[[Tensor], None]:
    def update(_: Tensor) -> None:
        optimizer.step()
        optimizer.zero_grad()

    return update

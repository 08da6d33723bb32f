"""Tensors that wait in the host's memory: saved activations, an optimizer with its state, parameters. Needs torch; for workers.

Host memory is pinned where a GPU copies from it. On a CPU the same copies are made within its one memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

_HOST = torch.device("cpu")


def on_host(tensor: Tensor, *, pinned: bool) -> Tensor:
    """Return a copy in host memory."""
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
    return copy.copy_(tensor.detach(), non_blocking=pinned)


class OffloadedActivations(saved_tensors_hooks):
    """In the block, what autograd saves is copied to the host; backward copies it back.

    Parameters stay, since they are on the device anyway; ``torch.autograd.graph.save_on_cpu`` would copy them too.

    Args:
        min_bytes: smaller tensors stay.
        pinned: use pinned memory.
        moved: is called for each tensor that is copied.
    """

    def __init__(self, min_bytes: int, *, pinned: bool, moved: Callable[[], None] = lambda: None) -> None:
        def pack(tensor: Tensor) -> Any:
            if tensor.nbytes < min_bytes or _is_parameter(tensor):
                return tensor.detach()  # an operator's own output would hold the node that holds it: a cycle that nothing frees
            moved()
            return tensor.device, on_host(tensor, pinned=pinned)

        def unpack(packed: Any) -> Tensor:
            if isinstance(packed, Tensor):
                return packed
            device, copy = packed
            back: Tensor = copy.to(device, non_blocking=pinned)
            return back

        super().__init__(pack, unpack)


def _is_parameter(tensor: Tensor) -> bool:
    """Tell whether a tensor is a parameter or, as the transposed weight of a linear layer, a view of one."""
    return isinstance(tensor if tensor._base is None else tensor._base, nn.Parameter)


class HostOptimizer(Optimizer):
    """Lets another optimizer step on copies of the parameters in host memory, and copies the result back.

    Args:
        parameters: of the model, on their device.
        make: makes the optimizer of the copies.
        pinned: use pinned memory for the copies and their gradients.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], make: Callable[[Iterable[nn.Parameter]], Optimizer], *, pinned: bool) -> None:
        given = list(parameters)
        self._copies = {parameter: nn.Parameter(on_host(parameter, pinned=pinned)) for parameter in given}
        self._gradients = {
            parameter: torch.empty(copy.shape, dtype=copy.dtype, pin_memory=pinned) for parameter, copy in self._copies.items()
        }
        self._inner = make(self._copies.values())
        super().__init__(given, {})

    @torch.no_grad()
    def take_gradient(self, parameter: Tensor) -> None:
        """Copy the gradient of a parameter to the host, or add it to what is there since the last step."""
        assert isinstance(parameter, nn.Parameter)
        assert parameter.grad is not None
        copy = self._copies[parameter]
        if copy.grad is None:
            copy.grad = self._gradients[parameter].copy_(parameter.grad)
        else:
            copy.grad.add_(parameter.grad.to(_HOST))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the copies with the gradients that are not on the host yet and those that are, then the parameters."""
        for parameter in self._copies:
            if parameter.grad is not None:
                self.take_gradient(parameter)
        self._inner.step()
        for parameter, copy in self._copies.items():
            copy.grad = None
            parameter.copy_(copy)


class HostOptimizers:
    """Makes the optimizer of a run.

    Args:
        make: makes the optimizer that steps on the host.
        pinned: use pinned memory.
    """

    def __init__(self, make: Callable[[Iterable[nn.Parameter]], Optimizer], *, pinned: bool) -> None:
        self._make, self._pinned = make, pinned
        self._made: HostOptimizer | None = None

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Return an optimizer of these parameters."""
        self._made = HostOptimizer(parameters, self._make, pinned=self._pinned)
        return self._made

    @contextmanager
    def taking_gradients(self) -> Iterator[None]:
        """In the block, move each gradient to the host once it is whole; hooks that were there before see it first."""
        made, self._made = self._made, None
        with ExitStack() as stack:
            for group in () if made is None else made.param_groups:
                for parameter in group["params"]:
                    stack.callback(parameter.register_post_accumulate_grad_hook(_taking(made)).remove)
            yield


def _taking(optimizer: HostOptimizer | None) -> Callable[[Tensor], None]:
    def take(parameter: Tensor) -> None:
        assert optimizer is not None
        optimizer.take_gradient(parameter)
        parameter.grad = None

    return take

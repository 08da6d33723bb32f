"""Parameters that stay in the host's memory; each module brings its own to the device when it runs. Needs torch; for workers.

A module computes with copies on the device, which autograd knows as copies: their gradients go back to the host by themselves. What
autograd saves of such a copy is not the copy but where it came from, so that it is brought again for backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from profiler.optimizations.host_memory import on_host
from profiler.recording import Role

Tell = Callable[[Sequence[Tensor], Role], None]


class HostParameters:
    """Makes a model leave its parameters on the host.

    Args:
        tell: is told of the copies on the device, which are parameters.
        pinned: use pinned memory.
    """

    def __init__(self, tell: Tell, *, pinned: bool) -> None:
        self._tell, self._pinned = tell, pinned
        self._device = torch.device("cpu")

    def load(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return ``model``, made on the host, with its buffers on ``device`` and its parameters where they are, or pinned."""
        self._device = device
        moved: dict[nn.Parameter, nn.Parameter] = {}
        for module in model.modules():
            for name, parameter in _own(module):
                if self._pinned and parameter not in moved:
                    moved[parameter] = nn.Parameter(on_host(parameter, pinned=True), parameter.requires_grad)
                module._parameters[name] = moved.get(parameter, parameter)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.to(device)
        return model

    def bring(self, model: nn.Module) -> nn.Module:
        """Return ``model``, each of whose modules has its parameters on the device while it runs."""
        for module in model.modules():
            if any(True for _ in _own(module)):
                brings = _Bringing(self._device, self._tell)
                module.register_forward_pre_hook(brings.begin)
                module.register_forward_hook(brings.end, always_call=True)
        return model


def _own(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield a module's parameters, without those of its parts."""
    return ((name, parameter) for name, parameter in list(module._parameters.items()) if parameter is not None)


@dataclass(frozen=True, slots=True)
class _Reference:
    """What is kept for backward of a copy, or of a view of one."""

    parameter: nn.Parameter
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Bringing:
    """The hooks of one module; it does not refer to the module, which would be a cycle."""

    def __init__(self, device: torch.device, tell: Tell) -> None:
        self._device, self._tell = device, tell
        self._running: list[tuple[dict[str, nn.Parameter], AbstractContextManager[Any]]] = []

    def begin(self, module: nn.Module, _: Any) -> None:
        """Put copies in the place of the module's parameters."""
        kept = dict(_own(module))
        copies = {name: parameter.to(self._device, copy=True) for name, parameter in kept.items()}
        self._tell(list(copies.values()), Role.PARAMETER)
        origins = {copy.untyped_storage()._cdata: kept[name] for name, copy in copies.items()}
        module._parameters.update(copies)  # type: ignore[arg-type]
        outer = torch._C._autograd._top_saved_tensors_default_hooks(True)
        hooks = saved_tensors_hooks(partial(self._pack, origins, outer), partial(self._unpack, outer))
        hooks.__enter__()
        self._running.append((kept, hooks))

    def end(self, module: nn.Module, *_: Any) -> None:
        """Put the parameters back, and let the copies go."""
        kept, hooks = self._running.pop()
        hooks.__exit__(None, None, None)
        module._parameters.update(kept)

    def _pack(self, origins: dict[int, nn.Parameter], outer: Any, tensor: Tensor) -> Any:
        origin = origins.get(tensor.untyped_storage()._cdata)
        if origin is not None:
            return _Reference(origin, tensor.shape, tensor.stride(), int(tensor.storage_offset()))
        return outer[0](tensor) if outer else tensor.detach()  # the hooks around the module, such as checkpointing's, see what is theirs

    def _unpack(self, outer: Any, packed: Any) -> Tensor:
        if isinstance(packed, _Reference):
            copy = packed.parameter.detach().to(self._device, copy=True)
            self._tell([copy], Role.PARAMETER)
            return copy.as_strided(packed.size, packed.stride, packed.offset)
        unpacked: Tensor = outer[1](packed) if outer else packed
        return unpacked

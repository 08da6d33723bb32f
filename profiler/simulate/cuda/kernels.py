"""Operators whose CUDA kernel allocates more than its result: scratch that is gone when it ends, workspaces that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from profiler.devices import Gpu
from profiler.simulate.memory import GPU_DEVICE, DeviceMemory
from profiler.simulate.notebook import SimulatedNotebook


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One call of an operator on the simulated GPU."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    gpu: Gpu
    memory: DeviceMemory
    notebook: SimulatedNotebook

    @property
    def is_on_gpu(self) -> bool:
        """Whether its first tensor is on the GPU."""
        first = next((value for value in self.args if isinstance(value, torch.Tensor)), None)
        return first is not None and first.device == GPU_DEVICE

    def run(self) -> Any:
        """Return the operator's results on fake tensors; they get their places after the kernel returns."""
        return self.func(*self.args, **self.kwargs)

    @contextmanager
    def scratch(self, num_bytes: int) -> Iterator[None]:
        """Hold bytes that no tensor shows while the block runs, as a kernel's temporary tensor does."""
        if num_bytes == 0:
            yield
            return
        place = self.notebook.allocate(num_bytes, self.memory)
        try:
            yield
        finally:
            self.notebook.free(place, self.memory)

    def hold(self, purpose: str, num_bytes: int) -> None:
        """Allocate bytes that a library keeps until the process ends, unless it holds some for this purpose already."""
        if num_bytes and purpose not in self.memory.held:
            self.memory.held[purpose] = self.notebook.allocate(num_bytes, self.memory)

    def keep(self, result: Any) -> Any:
        """Give results their places now, for kernels that allocate them before their scratch; return them."""
        self.notebook.hold_tensors(result, self.memory)
        return result


Kernel = Callable[[KernelCall], Any]
"""Runs the call and returns its results."""

KERNELS: dict[Any, Kernel] = {}
"""By the operator's overload; filled by the modules beside this one."""


def kernels_for(gpu: Gpu, memory: DeviceMemory, notebook: SimulatedNotebook) -> dict[Any, Callable[..., Any]]:
    """Return the kernels of a card, to be called with an operator, its arguments and its keyword arguments; host tensors take no part."""

    def bound(kernel: Kernel) -> Callable[..., Any]:
        def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            call = KernelCall(func, args, kwargs, gpu, memory, notebook)
            return kernel(call) if call.is_on_gpu else call.run()

        return run

    return {func: bound(kernel) for func, kernel in KERNELS.items()}

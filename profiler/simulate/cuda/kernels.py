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
    run: Callable[[], Any]
    """Gives the operator's results on fake tensors; they get their places after the kernel returns."""
    gpu: Gpu
    memory: DeviceMemory
    notebook: SimulatedNotebook

    @property
    def is_on_gpu(self) -> bool:
        """Whether its first tensor is on the GPU."""
        first = next((value for value in self.args if isinstance(value, torch.Tensor)), None)
        return first is not None and first.device == GPU_DEVICE

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

    def hold(self, purpose: str, size: Callable[[], int]) -> None:
        """Allocate ``size()`` bytes that a library keeps until the process ends, unless it holds some for this purpose already."""
        if purpose not in self.memory.held and (num_bytes := size()):
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
    """Return the kernels of a card, to be called as `Tracker` says; host tensors take no part."""

    def bound(kernel: Kernel) -> Callable[..., Any]:
        def call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
            bound_call = KernelCall(func, args, kwargs, run, gpu, memory, notebook)
            return kernel(bound_call) if bound_call.is_on_gpu else run()

        return call

    return {func: bound(kernel) for func, kernel in KERNELS.items()}

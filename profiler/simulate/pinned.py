"""Pinned host memory beside a simulated GPU: a lane of its own, with the sizes that torch's host allocator gives out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from profiler.recording import PINNED_HOST
from profiler.simulate.memory import HostMemory, Place
from profiler.simulate.notebook import SimulatedNotebook
from profiler.tracing.raw import Allocation

_aten = torch.ops.aten


class PinnedMemory(HostMemory):
    """Blocks of powers of two (torch 2.13, ATen/core/CachingHostAllocator.h); what it keeps of freed ones is not counted."""

    index = PINNED_HOST

    def allocate(self, num_bytes: int) -> Place:
        """Return the next address, and the rounded size."""
        place = super().allocate(1 << (num_bytes - 1).bit_length())
        return place._replace(allocation=Allocation(num_bytes, 0, None, None))


def pinned_kernels(notebook: SimulatedNotebook) -> dict[Any, Callable[..., Any]]:
    """Return how to run operators that can make a pinned tensor, called as `Tracker` says.

    Fake tensors cannot be pinned, so they are made as plain tensors of the host, and get their place in pinned memory.
    """
    memory = PinnedMemory()

    def made(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        if not kwargs.get("pin_memory"):
            return run()
        result = func(*args, **(kwargs | {"pin_memory": False}))
        notebook.hold_tensors(result, memory)
        return result

    def copied(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        result = _aten.clone.default(args[0])
        notebook.hold_tensors(result, memory)
        return result

    makes = (_aten.empty.memory_format, _aten.empty_like.default, _aten.empty_strided.default, _aten.new_empty.default)
    return {**dict.fromkeys(makes, made), _aten._pin_memory.default: copied}

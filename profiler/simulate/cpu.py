"""Operators whose CPU kernel allocates more than its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from profiler.simulate.memory import HostMemory
from profiler.simulate.notebook import SimulatedNotebook


def cpu_kernels(memory: HostMemory, notebook: SimulatedNotebook) -> dict[Any, Callable[..., Any]]:
    """Return how to run such operators, by their overload; called with the operator, its arguments and its keyword arguments."""

    def embedding_dense_backward(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Copy a gradient that does not lie in one piece, after the result is there (ATen/native/Embedding.cpp)."""
        result = func(*args, **kwargs)
        notebook.hold_tensors(result, memory)
        if not args[0].is_contiguous():
            notebook.free(notebook.allocate(args[0].nbytes, memory), memory)
        return result

    return {torch.ops.aten.embedding_dense_backward.default: embedding_dense_backward}

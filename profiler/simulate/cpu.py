"""Operators whose CPU kernel allocates more than its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from profiler.simulate.memory import HostMemory
from profiler.simulate.notebook import SimulatedNotebook


def cpu_kernels(memory: HostMemory, notebook: SimulatedNotebook) -> dict[Any, Callable[..., Any]]:
    """Return how to run such operators, by their overload, called as `Tracker` says."""

    def embedding_dense_backward(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Copy a gradient that does not lie in one piece, after the result is there (ATen/native/Embedding.cpp)."""
        result = run()
        notebook.hold_tensors(result, memory)
        if not args[0].is_contiguous():
            notebook.free(notebook.allocate(args[0].nbytes, memory), memory)
        return result

    def promoting(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Copy operands of another dtype than the common one before there is a result (ATen/TensorIterator.cpp); GPUs cast as they read."""
        operands = [arg for arg in args if isinstance(arg, torch.Tensor)]
        if len({operand.dtype for operand in operands}) < 2:
            return run()
        common = torch.result_type(*operands)
        copied = [operand for operand in operands if operand.dtype is not common and operand.numel()]
        if _is_in_place(func) and args[0].dtype is not common:
            copied.append(args[0])  # what is written has a place of its own in the common dtype, beside the copy of what is read
        copies = [notebook.allocate(operand.numel() * common.itemsize, memory) for operand in copied]
        result = run()
        notebook.hold_tensors(result, memory)
        for copy in copies:
            notebook.free(copy, memory)
        return result

    def sum_in(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Copy the summands where the sum has another dtype, after the result is there (ATen/native/ReduceOpsUtils.h)."""
        result = run()
        if result.dtype is not args[0].dtype:
            notebook.hold_tensors(result, memory)
            notebook.free(notebook.allocate(args[0].numel() * result.dtype.itemsize, memory), memory)
        return result

    aten = torch.ops.aten
    return {
        aten.embedding_dense_backward.default: embedding_dense_backward,
        aten.sum.dim_IntList: sum_in,
        **dict.fromkeys((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor), promoting),
        **dict.fromkeys((aten.add_.Tensor, aten.sub_.Tensor, aten.mul_.Tensor, aten.div_.Tensor), promoting),
    }


def _is_in_place(func: Any) -> bool:
    """Tell whether an operator writes its first argument."""
    return bool(func._schema.name.endswith("_"))

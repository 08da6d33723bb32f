"""Operators whose CPU kernel allocates more than its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from profiler.simulate.memory import HostMemory, Place
from profiler.simulate.notebook import SimulatedNotebook
from profiler.simulate.wrapped_numbers import NUMBERS, WrappedNumbers, scalar_dtype

_aten = torch.ops.aten
_Kernel = Callable[[Any, tuple[Any, ...], dict[str, Any], Callable[[], Any]], Any]
_QUOTIENTS = ("div", "copysign")
"""Of integers they are fractions."""
_SAVE_NUMBERS = (_aten.mul.Tensor, _aten.mul_.Tensor, _aten.div.Tensor, _aten.div_.Tensor)
"""Their backward needs the other operand as a tensor (derivatives.yaml)."""
_ARITHMETIC = (*(f"{name}{form}" for name in ("add", "sub", "mul", *_QUOTIENTS, "remainder", "fmod") for form in ("", "_")), "rsub")
_BITWISE = tuple(f"bitwise_{name}{form}" for name in ("and", "or", "xor", "left_shift", "right_shift") for form in ("", "_"))
_SHIFTS = (_aten.__lshift__, _aten.__rshift__, _aten.__ilshift__, _aten.__irshift__)
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_BINARY = (*_ARITHMETIC, "floor_divide", "floor_divide_", *_BITWISE, *_COMPARISONS)
_FOREACH = tuple(f"_foreach_{name}{form}" for name in ("add", "sub", "mul", "div") for form in ("", "_"))
_OVERLOADS = ("Tensor", "Scalar", "Tensor_Scalar", "Scalar_Tensor", "List", "ScalarList", "")
"""Of two operands; others write to a tensor that the caller gives, or belong to TorchScript."""


def cpu_kernels(memory: HostMemory, notebook: SimulatedNotebook, numbers: WrappedNumbers) -> dict[Any, _Kernel]:
    """Return how to run such operators, by their overload, called as `Tracker` says."""

    def embedding_dense_backward(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Copy a gradient that does not lie in one piece, after the result is there (ATen/native/Embedding.cpp)."""
        result = run()
        notebook.hold_tensors(result, memory)
        if not args[0].is_contiguous():
            notebook.free(notebook.allocate(args[0].nbytes, memory), memory)
        return result

    def sum_in(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Copy the summands where the sum has another dtype, after the result is there (ATen/native/ReduceOpsUtils.h)."""
        result = run()
        if result.dtype is not args[0].dtype:
            notebook.hold_tensors(result, memory)
            notebook.free(notebook.allocate(args[0].numel() * result.dtype.itemsize, memory), memory)
        return result

    def layer_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Keep mean and deviation in float32 where the weight has another dtype than the input (ATen/native/layer_norm.cpp)."""
        result, *statistics = run()
        if args[2] is not None and args[2].dtype is not args[0].dtype:
            statistics = [torch.empty_like(each, dtype=torch.float32) for each in statistics]
        return result, *statistics

    iteration = _Iteration(memory, notebook, numbers)
    kernels: dict[Any, _Kernel] = dict.fromkeys(_overloads(_BINARY), iteration.binary)
    return kernels | {
        **{shift.Scalar: iteration.binary for shift in _SHIFTS},
        _aten.pow.Scalar: iteration.power,
        **dict.fromkeys(_overloads(_FOREACH), iteration.one_by_one),
        **dict.fromkeys((_aten.mean.default, _aten.mean.dim), iteration.mean),
        _aten.embedding_dense_backward.default: embedding_dense_backward,
        _aten.sum.dim_IntList: sum_in,
        _aten.native_layer_norm.default: layer_norm,
    }


class _Iteration:
    """What iterations over elements allocate beside their result (ATen/TensorIterator.cpp); GPUs cast as they read.

    Args:
        memory: the host's.
        notebook: what happens is written there.
        numbers: the scalars that Python numbers are wrapped into.
    """

    def __init__(self, memory: HostMemory, notebook: SimulatedNotebook, numbers: WrappedNumbers) -> None:
        self._memory, self._notebook, self._numbers = memory, notebook, numbers

    def binary(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Wrap an operand that is a number, and copy operands of another dtype than the common one before there is a result."""
        operands = args[:2]
        numbers = [operand for operand in operands if isinstance(operand, NUMBERS)]
        if not numbers and operands[0].dtype is operands[1].dtype and operands[0].dtype.is_floating_point:
            return run()
        saves = func in _SAVE_NUMBERS
        is_wrapped = bool(numbers) and saves and self._numbers.are_wrapped()
        scalars = [] if is_wrapped else [self._numbers.wrap(number) for number in numbers]
        copies = [self._notebook.allocate(num_bytes, self._memory) for num_bytes in _copied_bytes(func, operands)]
        result = run()
        self._notebook.hold_tensors(result, self._memory)
        self._free(copies)
        for scalar in scalars:
            self._numbers.unwrap(scalar, result if saves and operands[0].requires_grad else None)
        return result

    def power(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Do the same for a number to the power of a tensor, once the result is there (ATen/native/Pow.cpp)."""
        result = run()
        self._notebook.hold_tensors(result, self._memory)
        return self.binary(func, args, kwargs, partial(_known, result))

    def one_by_one(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Do the same for every tensor of a list, one after the other (ATen/native/ForeachOpsKernels.cpp)."""
        tensors, other = args[:2]
        result = run()
        others = other if isinstance(other, (list, tuple)) else [other] * len(tensors)
        for operands, one in zip(zip(tensors, others, strict=True), result or [None] * len(tensors), strict=True):
            self.binary(func, operands, {}, partial(_known, one))
        return result

    def mean(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Sum in float32 where the result has half the bits, and divide by how many there are, a number (ATen/native/ReduceOps.cpp)."""
        result = run()
        self._notebook.hold_tensors(result, self._memory)
        dtype = torch.float32 if result.dtype in (torch.bfloat16, torch.float16) else result.dtype
        sums = [] if dtype is result.dtype else [self._notebook.allocate(result.numel() * dtype.itemsize, self._memory)]
        if args[0].dtype is not dtype:
            self._free([self._notebook.allocate(args[0].numel() * dtype.itemsize, self._memory)])
        scalar = self._numbers.wrap(args[0].numel())
        self._free([self._notebook.allocate(dtype.itemsize, self._memory), *sums])
        self._numbers.unwrap(scalar)
        return result

    def _free(self, places: list[Place]) -> None:
        for place in places:
            self._notebook.free(place, self._memory)


def _known(result: Any) -> Any:
    return result


def _copied_bytes(func: Any, operands: tuple[Any, ...]) -> Iterator[int]:
    """Return the sizes of the copies in the common dtype, in the order in which they are made."""
    common = torch.result_type(*operands)
    if _name(func) in _QUOTIENTS and not (common.is_floating_point or common.is_complex):
        common = torch.get_default_dtype()
    for operand in reversed(operands) if _name(func) == "rsub" else operands:
        dtype, count = (operand.dtype, operand.numel()) if isinstance(operand, torch.Tensor) else (scalar_dtype(operand), 1)
        if dtype is not common and count:
            yield count * common.itemsize
    if _is_in_place(func) and operands[0].dtype is not common:
        yield operands[0].numel() * common.itemsize  # what is written has a place of its own in the common dtype, beside the copy


def _overloads(names: tuple[str, ...]) -> Iterator[Any]:
    """Return the overloads of these operators that take two operands."""
    for packet in (getattr(_aten, name) for name in names):
        for func in (getattr(packet, overload) for overload in packet.overloads()):
            if func._overloadname in _OVERLOADS and _takes_tensors(func):
                yield func


def _takes_tensors(func: Any) -> bool:
    return any("Tensor" in str(argument.type) for argument in func._schema.arguments[:2])


def _name(func: Any) -> str:
    """Return an operator's name without what tells its form apart."""
    return str(func._schema.name).removeprefix("aten::").removeprefix("_foreach_").removesuffix("_")


def _is_in_place(func: Any) -> bool:
    """Tell whether an operator writes its first argument."""
    return bool(func._schema.name.endswith("_"))

"""Operators on fake tensors, one by one -> allocations: every new storage gets a place, and keeps it until it dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from profiler.simulate.fakes import Key, LeanFakeTensorMode, Recipe
from profiler.simulate.flops import Cost, cost_of
from profiler.simulate.gradient_sums import in_place_sum
from profiler.simulate.memory import Memory
from profiler.simulate.notebook import NOWHERE, SimulatedNotebook, Standing
from profiler.tracing.notes import Note
from profiler.tracing.raw import Call

_aten = torch.ops.aten
_ITEM = _aten._local_scalar_dense.default
_DETACH = _aten.detach.default
_DEVICE = torch.ops.prim.device.default
_MARK_ENDS = torch.ops.profiler._record_function_exit._RecordFunction
_MARKS = frozenset((torch.ops.profiler._record_function_enter_new.default, _MARK_ENDS))
_backward_id = torch._C._current_graph_task_id
_sequence_number = torch._C._autograd._get_sequence_nr
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class _Known(NamedTuple):
    """What is known of calls of one kind."""

    recipe: Recipe | None
    """Makes their result without asking torch again."""
    cost: Cost | None
    duration_ns: int


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator below autograd.

    Args:
        notebook: what happens is written there.
        fakes: runs the operators; the mode below this one.
        memory_of: the memory of a torch device; None for devices that hold nothing, such as meta.
        kernels: how to run operators whose kernel allocates more than its result; called as ``kernel(func, args, kwargs, run)``, where
            ``run()`` gives the operator's own result.
        duration_of: how long a call takes, in nanoseconds; the clock moves by it.
        before_call: called before every operator.
    """

    def __init__(
        self,
        notebook: SimulatedNotebook,
        fakes: LeanFakeTensorMode,
        memory_of: Callable[[torch.device], Memory | None],
        kernels: Mapping[Any, Callable[[Any, tuple[Any, ...], dict[str, Any], Callable[[], Any]], Any]],
        duration_of: Callable[[Cost], int],
        before_call: Callable[[], None],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._notebook = notebook
        self._fakes = fakes
        self._memory_of = cache(memory_of)
        self._kernels = kernels
        self._duration_of = duration_of
        self._before_call = before_call
        self._known: dict[Key, _Known] = {}
        self._modules_by_sequence: dict[int, str | None] = {}
        self._last_sequence = 0
        self._marks: list[Any] = []
        self.is_watching = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the wrapper that guards against it costs time and hides who calls

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is _DEVICE and type(args[0]) is FakeTensor:
            return args[0].fake_device  # C++ asks at every turn: more than half of all calls
        kwargs = kwargs or {}
        for kind in types:
            if kind is not FakeTensor and _is_wrapper(kind):
                return NotImplemented  # what it is made of is worked on next, with this mode in place again
        if func is _ITEM and isinstance(args[0], FakeTensor):
            return _value(args[0])
        if func is _DEVICE:
            return args[0].device
        with torch._C.DisableTorchFunction():  # modes above autograd have had their say, and would see every look at a tensor's shape
            return self._below_autograd(in_place_sum(func, args), args, kwargs)

    def _below_autograd(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is _DETACH or not self.is_watching:
            return func(*args, **kwargs)  # autograd detaches what it saves, which takes no memory and no time
        if func in _MARKS:
            return self._mark(func, args)
        if func not in self._kernels and _is_composite(func):
            with self:  # in inference mode torch passes whole what autograd would have taken apart, with what it makes on the way
                return func._op_dk(_COMPOSITE, *args, **kwargs)  # C++'s own parts; `decompose` prefers Python's, which differ
        return self._watched(func, args, kwargs)

    def _watched(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator and note what it holds, what it costs and where that was."""
        self._before_call()
        notebook, start_ns = self._notebook, self._notebook.now_ns
        notebook.standing = self._stand(func)
        key = self._fakes.key_of(func, args, kwargs)
        known = None if key is None else self._known.get(key)
        run = partial(func, *args, **kwargs) if known is None or known.recipe is None else partial(self._fakes.made, known.recipe, args)
        kernel = self._kernels.get(func)
        result = run() if kernel is None else kernel(func, args, kwargs, run)
        for tensor in (result,) if type(result) is FakeTensor else _tensors(result):
            memory = self._memory_of(tensor.device)
            if memory is not None:
                notebook.hold(tensor.untyped_storage(), memory)
        if known is None:
            known = self._learn(key, func, args, kwargs, result)
        if known.cost is not None:
            self._note(known.cost, known.duration_ns)
        if notebook.standing.in_backward:
            notebook.ran_node(start_ns)
        notebook.standing = NOWHERE
        return result

    def _mark(self, func: Any, args: tuple[Any, ...]) -> Any:
        """Note what torch marks for its own profiler: the optimizer's step and its zero_grad."""
        if func is _MARK_ENDS:
            self._marks.pop().__exit__()
        else:
            self._marks.append(self._notebook.open(Note("torch", args[0])))
        return func(*args)

    def _note(self, cost: Cost, duration_ns: int) -> None:
        notebook = self._notebook
        standing = notebook.standing
        notebook.called(Call(notebook.now_ns, duration_ns, standing.module, standing.operator or "", cost.flops, cost.num_bytes))
        notebook.now_ns += duration_ns

    def _learn(self, key: Key | None, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> _Known:
        cost = cost_of(func, args, kwargs, result)
        recipe = None if key is None else self._fakes.recipes.get(key)
        known = _Known(recipe, cost, 0 if cost is None else self._duration_of(cost))
        if key is not None:
            self._known[key] = known
        return known

    def _stand(self, func: Any) -> Standing:
        modules = self._notebook.modules
        module = modules[-1] if modules else None
        in_backward = _backward_id() != -1
        operator = func._schema.name
        if in_backward and not modules:
            node = torch._C._current_autograd_node()
            module = None if node is None else self._modules_by_sequence.get(node._sequence_nr())
            return Standing(module, operator, True, False)
        sequence = _sequence_number()
        if sequence != self._last_sequence:
            for number in range(self._last_sequence, sequence):
                self._modules_by_sequence[number] = module
            self._last_sequence = sequence
        return Standing(module, operator, in_backward, in_backward)


@cache
def _is_wrapper(kind: type) -> bool:
    """Tell whether tensors of a type hold others and no memory of their own, as quantized ones do."""
    return hasattr(kind, "__tensor_flatten__")


@cache
def _is_composite(func: Any) -> bool:
    """Tell whether an operator is made of others and has no kernel of its own."""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return has_kernel(func.name(), "CompositeImplicitAutograd") and not has_kernel(func.name(), "CPU")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            if isinstance(item, torch.Tensor):
                yield item


def _value(tensor: torch.Tensor) -> float | int | bool:
    """Return what a program reads from a tensor without values: true or one, so that masks are full and steps have been counted."""
    if tensor.dtype is torch.bool:
        return True
    return 1.0 if tensor.dtype.is_floating_point else 1

"""What a simulated CPU's kernels allocate beside their results is what torch allocates, block by block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from profiler.recording import Action
from profiler.simulate.cpu import cpu_kernels
from profiler.simulate.memory import HostMemory
from profiler.simulate.notebook import SimulatedNotebook
from profiler.simulate.session import Simulation
from profiler.simulate.wrapped_numbers import WrappedNumbers
from profiler.storage import read_recording

Call = Callable[[], Any]
NUM_ELEMENTS = 96
DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.uint8)
NUMBERS = (2.5, 2, True)


def kernels() -> dict[Any, Any]:
    notebook = SimulatedNotebook(1)
    return dict(cpu_kernels(HostMemory(), notebook, WrappedNumbers(HostMemory(), notebook)))


REDUCTIONS = ("aten::mean", "aten::sum", "aten::embedding_dense_backward", "aten::native_layer_norm")
BINARY = [func for func in kernels() if func._schema.name not in REDUCTIONS]


def measured(calls: list[Call]) -> list[tuple[int, int]]:
    """Return the blocks that torch allocates in these calls: the bytes of each, and how many are allocated with it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        for call in calls:
            call()
    return allocations([event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"])


def simulated(calls: list[Call], path: Path) -> list[tuple[int, int]]:
    """Return the same of a simulation."""
    with Simulation(path):
        for call in calls:
            call()
    signs = {Action.ALLOC.value: 1, Action.FREE_COMPLETED.value: -1}
    events = read_recording(path).events.to_pylist()
    return allocations([signs[event["action"]] * event["requested_bytes"] for event in events])


def allocations(changes: list[int]) -> list[tuple[int, int]]:
    alive = np.cumsum(changes)
    return [(change, int(total)) for change, total in zip(changes, alive, strict=True) if change > 0]


def possible_calls(func: Any) -> list[Call]:
    """Return calls of an overload on vectors of every dtype, with numbers and vectors beside them, where torch has them."""
    kinds = [str(argument.type) for argument in func._schema.arguments if not argument.kwarg_only][:2]
    calls: list[Call] = []
    for dtype in DTYPES:
        for other in (*DTYPES, *NUMBERS):

            def call(dtype: torch.dtype = dtype, other: Any = other) -> Any:
                return func(*made(kinds, dtype, other))

            if is_possible(call):
                calls.append(call)
    return calls


def made(kinds: list[str], dtype: torch.dtype, other: Any) -> list[Any]:
    """Return two operands of these kinds; of two tensors a number may take the place of the second one."""
    first, second = kinds
    if first == "number":
        return [operand(first, other), operand(second, dtype)]
    num_elements = () if kinds == ["List[Tensor]", "Tensor"] else (NUM_ELEMENTS,)  # a list takes a tensor that stands for a number
    return [operand(first, dtype), operand(second, other, num_elements)]


def operand(kind: str, given: Any, shape: tuple[int, ...] = (NUM_ELEMENTS,)) -> Any:
    if kind.startswith("List"):
        return [operand(kind[5:-1], given) for _ in range(2)]
    if not isinstance(given, torch.dtype):
        return given
    return 3 if kind == "number" else torch.ones(shape, dtype=given)


def is_possible(call: Call) -> bool:
    try:
        call()
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    return True


@pytest.mark.parametrize("func", BINARY, ids=str)
def test_numbers_and_operands_of_other_dtypes_take_what_torch_gives_them(func: Any, tmp_path: Path) -> None:
    calls = possible_calls(func)

    assert calls
    assert simulated(calls, tmp_path / "run.headroom") == measured(calls)


def scaled(requires_grad: bool) -> Call:
    def call() -> None:
        x = torch.ones(NUM_ELEMENTS, requires_grad=requires_grad)
        scaled = (x * 2.5 + 1) / 3
        other = torch.ones(NUM_ELEMENTS)
        del scaled, other
        mean = x.mul(0.5).div_(2).mean()
        torch.ones(NUM_ELEMENTS)
        if requires_grad:
            torch.autograd.backward(mean)
        torch.ones(NUM_ELEMENTS)

    return call


@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_number_that_backward_needs_lives_until_then_and_others_for_a_call(requires_grad: bool, tmp_path: Path) -> None:
    calls = [scaled(requires_grad)]
    assert simulated(calls, tmp_path / "run.headroom") == measured(calls)


@pytest.mark.parametrize("keeps", ["in a list", "and drops it"])
def test_the_state_of_the_hosts_generator_is_a_tensor_of_its_own(keeps: str, tmp_path: Path) -> None:
    def call() -> None:
        states = [torch.get_rng_state() for _ in range(3)] if keeps == "in a list" else []
        torch.set_rng_state(torch.get_rng_state())
        torch.ones(NUM_ELEMENTS)
        del states

    assert simulated([call], tmp_path / "run.headroom") == measured([call])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_layer_norm_keeps_what_it_measured_in_float32_where_its_weight_is(dtype: torch.dtype, tmp_path: Path) -> None:
    def normed() -> torch.Tensor:
        return torch.nn.functional.layer_norm(torch.ones(8, 12, dtype=dtype), (12,), torch.ones(12), torch.ones(12))

    found = simulated([normed], tmp_path / "run.headroom")

    assert found == measured([normed])
    assert [num_bytes for num_bytes, _ in found].count(8 * 4) == 2


def test_a_complex_number_takes_sixteen_bytes_and_makes_the_tensor_complex(tmp_path: Path) -> None:
    calls: list[Call] = [lambda: torch.ones(NUM_ELEMENTS) * 2j, lambda: 1j - torch.ones(NUM_ELEMENTS, dtype=torch.int64)]
    found = simulated(calls, tmp_path / "run.headroom")

    assert found == measured(calls)
    assert 16 in [num_bytes for num_bytes, _ in found]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_mean_is_a_sum_divided_by_a_number(dtype: torch.dtype, tmp_path: Path) -> None:
    def values() -> torch.Tensor:
        return torch.ones(8, NUM_ELEMENTS // 8, dtype=dtype)

    calls: list[Call] = [lambda: values().mean(), lambda: values().mean(1), lambda: values().mean(0, dtype=torch.float32)]
    assert simulated(calls, tmp_path / "run.headroom") == measured(calls)

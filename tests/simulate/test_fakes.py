"""What is remembered of an operator equals what torch finds out anew every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from profiler.simulate.fakes import LeanFakeTensorMode

functional = nn.functional
OTHER = torch.device("cpu", 1)


@pytest.fixture
def mode() -> Iterator[LeanFakeTensorMode]:
    with LeanFakeTensorMode() as mode:
        yield mode


def a(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    return torch.empty(shape, dtype=dtype, device=device)


CALLS: dict[str, Callable[[], Any]] = {
    "product": lambda: a(3, 4) @ a(4, 5),
    "broadcast": lambda: a(3, 1, dtype=torch.bfloat16) + a(4),
    "of a transposed view": lambda: a(3, 4).t() * 2,
    "reduction": lambda: a(2, 3, 4).sum((0, 2), keepdim=True),
    "several": lambda: torch.topk(a(3, 8), 2),
    "chunks": lambda: list(a(6, 4).chunk(3)),
    "slice of a slice": lambda: a(8, 8)[2:6][:, 1:3],
    "view of another dtype": lambda: a(4, 4).view(torch.int32),
    "attention": lambda: torch.ops.aten._scaled_dot_product_flash_attention(*[a(1, 2, 8, 16, dtype=torch.float16) for _ in range(3)]),
    "norm": lambda: torch.ops.aten.native_layer_norm(a(2, 4), [4], a(4), a(4), 1e-5),
    "made anew": lambda: torch.zeros(3, dtype=torch.int64, device=OTHER),
    "moved": lambda: a(3).to(OTHER),
    "channels last": lambda: functional.conv2d(a(1, 3, 8, 8).to(memory_format=torch.channels_last), a(4, 3, 3, 3)),
    "lists": lambda: torch._foreach_mul([a(3), a(4, 2)], [1.5, 2.5]),
    "written to": lambda: a(3).add_(1),
    "lists written to": lambda: torch._foreach_add_([a(3), a(4)], 1.0),
    "lists of unlike elements": lambda: torch._foreach_add([a(3), a(2, 1)], [a(3), a(2, 2)]),
    "lists of other dtypes": lambda: torch._foreach_mul([a(3), a(2, dtype=torch.int64)], 0.5),
    "lists of views": lambda: torch._foreach_sqrt([a(4, 3).t(), a(6)[2:4]]),
    "lists and lists": lambda: torch._foreach_addcdiv([a(3), a(2, 2)], [a(3), a(2, 2)], [a(3), a(2, 2)], [1.0, 2.0]),
    "complex": lambda: torch.complex(a(3), a(3)).conj() * 2,
    "a number": lambda: torch.ops.aten.numel.default(a(3, 4)),
    "indexed": lambda: a(9, 4)[torch.zeros(5, dtype=torch.int64)],
}


@pytest.mark.parametrize("name", CALLS)
def test_the_first_call_and_all_later_ones_give_what_torch_gives(name: str, mode: LeanFakeTensorMode) -> None:
    found = [looks(CALLS[name]()) for _ in range(3)]
    with FakeTensorMode():
        expected = looks(CALLS[name]())

    assert found == [expected] * 3


def looks(value: Any) -> Any:
    if isinstance(value, Tensor):
        assert isinstance(value, FakeTensor)
        memory = value.untyped_storage().nbytes()
        return value.shape, value.stride(), value.storage_offset(), value.dtype, value.device, value.is_conj(), value.requires_grad, memory
    return [looks(part) for part in value] if isinstance(value, (list, tuple)) else value


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def test_views_share_the_storage_and_new_tensors_do_not(mode: LeanFakeTensorMode) -> None:
    base = a(4, 6)
    for _ in range(2):
        assert storage(base.t()) == storage(base[1:]) == storage(base.view(24)) == storage(base)
        first, second = base + 1, base + 1
        assert len({storage(base), storage(first), storage(second)}) == 3
        assert {storage(part) for part in base.split(2)} == {storage(base)}


def test_what_was_written_to_is_returned_itself(mode: LeanFakeTensorMode) -> None:
    tensors = [a(3), a(3)]

    assert [tensor.mul_(2) is tensor for tensor in tensors] == [True, True]


def test_results_that_share_a_storage_do_so_every_time(mode: LeanFakeTensorMode) -> None:
    lstm = nn.LSTM(4, 8)
    weights = [a(*weight.shape) for weight in lstm.parameters()]
    zeros = a(1, 2, 8)
    shared = []
    for _ in range(3):
        with torch.no_grad():
            run = torch.ops.aten.mkldnn_rnn_layer(a(5, 2, 4), *weights, zeros, zeros, False, [], 2, 8, 1, True, False, False, True)
            grads = torch.ops.aten.mkldnn_rnn_layer_backward(
                a(5, 2, 4), weights[0], weights[1], weights[2], weights[3], zeros, zeros, *run[:3], a(5, 2, 8), zeros, zeros,
                False, 2, 8, 1, True, True, False, [], False, run[3],
            )  # fmt: skip
        shared.append([storage(grad) for grad in grads].count(storage(grads[3])))

    assert shared == [2, 2, 2]


def test_an_error_is_raised_however_often_a_like_call_went_well(mode: LeanFakeTensorMode) -> None:
    for _ in range(2):
        a(3) + a(3)
    with pytest.raises(RuntimeError, match="broadcast"):
        a(3) + a(4)
    with pytest.raises(RuntimeError, match="device"):
        a(3) + a(3, device=OTHER)
    with pytest.raises(RuntimeError, match="same number|same length"):
        torch._foreach_add_([a(3), a(3)], [a(3)])


def test_numbers_that_are_equal_and_of_other_kinds_are_told_apart(mode: LeanFakeTensorMode) -> None:
    ints = a(3, dtype=torch.int64)
    dtypes = [(ints * number).dtype for number in (1, 1.0, True, 1.0, 1)]

    assert dtypes == [torch.int64, torch.float32, torch.int64, torch.float32, torch.int64]


def test_the_default_dtype_counts(mode: LeanFakeTensorMode) -> None:
    ints = a(3, dtype=torch.int64)
    before = torch.get_default_dtype()
    dtypes = []
    for dtype in (torch.float32, torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        dtypes.append((ints / 2).dtype)
    torch.set_default_dtype(before)

    assert dtypes == [torch.float32, torch.float64, torch.float32]


def test_a_tensor_that_changed_its_shape_in_place_is_seen_as_it_is(mode: LeanFakeTensorMode) -> None:
    tensor = a(2, 3)
    assert (tensor + 1).shape == (2, 3)
    tensor.t_()
    assert (tensor + 1).shape == (3, 2)
    tensor.data = a(7)
    assert (tensor + 1).shape == (7,)


def test_gradients_flow_through_what_is_remembered(mode: LeanFakeTensorMode) -> None:
    layer = nn.Linear(4, 4)
    for _ in range(3):
        layer.zero_grad()
        functional.gelu(layer(a(2, 4).transpose(0, 1).transpose(0, 1))).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.shape == (4, 4)


def test_the_calls_of_equal_layers_are_remembered(mode: LeanFakeTensorMode, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    dispatch = LeanFakeTensorMode.dispatch
    monkeypatch.setattr(LeanFakeTensorMode, "dispatch", lambda self, func, *rest: asked.append(func) or dispatch(self, func, *rest))
    layers = [nn.Linear(4, 4) for _ in range(20)]
    hidden = a(2, 4)
    for number, layer in enumerate(layers):
        if number == 2:
            asked.clear()
        hidden = functional.relu(layer(hidden))

    assert [func for func in asked if func.namespace == "aten"] == []

"""An operator's call -> its cost: the floating-point operations of its products, and the bytes that it reads and writes.

Products are counted by the formulas of torch.utils.flop_counter (a multiplication and an addition are two), attention by formulas of its
own: a causal mask that the kernel knows of halves it, and the scores that a fused backward computes again are not counted, so that a
training step has the FLOPs of the model, 6 N D + 12 L d S D. Everything else is decided by the bytes. What moves no bytes, such as a view
or an allocation, costs nothing and has no cost at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten

_FREE = {_aten._unsafe_view, _aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided, _aten.resize_}
"""Without a kernel, though their schema is not that of a view."""
_GATHERS = {_aten.embedding, _aten.index, _aten.index_select, _aten.gather, _aten.nll_loss_forward}
"""Read no more of their first argument than they write."""
_OVERWRITES = {_aten.copy_, _aten.zero_, _aten.fill_, _aten._foreach_copy_, _aten._foreach_zero_}
"""Do not read what they write to."""
_ATTENTION = {
    _aten._scaled_dot_product_flash_attention: 1,
    _aten._scaled_dot_product_efficient_attention: 1,
    _aten._scaled_dot_product_cudnn_attention: 1,
    _aten._scaled_dot_product_flash_attention_for_cpu: 1,
    _aten._scaled_dot_product_flash_attention_backward: 2,
    _aten._scaled_dot_product_efficient_attention_backward: 2,
    _aten._scaled_dot_product_cudnn_attention_backward: 2,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: 2,
}
"""Fused attention, and its FLOPs as a multiple of the forward's: backward has two products for each of the forward's two."""


class Cost(NamedTuple):
    """What one call takes."""

    flops: int
    num_bytes: int
    """Read and written."""
    dtype: torch.dtype
    """Of the arithmetic: that of the first floating-point argument, else of the result."""
    device: torch.device


def cost_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Cost | None:
    """Return what a call below autograd took.

    Args:
        func: the operator's overload.
        args: its arguments.
        kwargs: its keyword arguments.
        result: what it returned.

    Returns:
        None where it ran no kernel.
    """
    operator = _operator(func)
    if operator is None:
        return None
    first, others = list(_tensors(args[:1])), list(_tensors((*args[1:], *kwargs.values())))
    written = list(_tensors((result,))) or [tensor for index in operator.written for tensor in _tensors(args[index : index + 1])]
    if not written:
        return None
    write_bytes = sum(map(_bytes_of, written))
    read_bytes = 0 if operator.overwrites else sum(map(_bytes_of, first))
    if operator.gathers:
        read_bytes = min(read_bytes, write_bytes)
    read_bytes += sum(map(_bytes_of, others))
    flops = operator.flops(*args, **kwargs, out_val=result) if operator.flops else 0
    lead = next((tensor for tensor in (*first, *others) if tensor.is_floating_point()), written[0])
    return Cost(flops, read_bytes + write_bytes, lead.dtype, written[0].device)


@dataclass(frozen=True, slots=True)
class _Operator:
    """What is known of an overload."""

    flops: Callable[..., int] | None
    written: tuple[int, ...]
    """Positions of the arguments that it changes, where it returns nothing."""
    gathers: bool
    overwrites: bool


@cache
def _operator(func: Any) -> _Operator | None:
    packet = func.overloadpacket
    if func.is_view or func.namespace == "prim" or packet in _FREE or torch.Tag.inplace_view in func.tags:
        return None
    arguments = enumerate(func._schema.arguments)
    written = tuple(index for index, argument in arguments if argument.alias_info is not None and argument.alias_info.is_write)
    return _Operator(_formula(func), written, packet in _GATHERS, packet in _OVERWRITES)


def _formula(func: Any) -> Callable[..., int] | None:
    packet = func.overloadpacket
    if packet in _ATTENTION:
        return _attention(func, _ATTENTION[packet])
    if packet is _aten._grouped_mm:
        return _grouped_product
    formula: Callable[..., int] | None = flop_registry.get(packet)
    return formula


def _attention(func: Any, factor: int) -> Callable[..., int]:
    """Return the formula of an attention operator: two products of the queries' length by the keys', over the heads of the queries."""
    names = [argument.name for argument in func._schema.arguments]
    query, key, value, causal = (names.index(name) for name in ("query", "key", "value", "is_causal"))

    def count(*args: Any, out_val: Any, **kwargs: Any) -> int:
        batch, heads, num_queries, width = args[query].shape
        is_causal = args[causal] if causal < len(args) else kwargs.get("is_causal", False)
        pairs = _num_pairs(num_queries, args[key].shape[-2], is_causal)
        return factor * int(2 * batch * heads * pairs * (width + args[value].shape[-1]))

    return count


def _num_pairs(num_queries: int, num_keys: int, is_causal: bool) -> float:
    """Return how many pairs of a query and a key are looked at; of a square under a causal mask, half."""
    if not is_causal:
        return num_queries * num_keys
    square = min(num_queries, num_keys)
    return square * square / 2 + (num_queries - square) * num_keys


def _grouped_product(first: Tensor, second: Tensor, *_: Any, out_val: Any, **__: Any) -> int:
    """Count one product a group: of three dimensions the first is the group's; of two, the groups lie one after another in one of them."""
    groups = first.shape[0] if first.dim() == second.dim() == 3 else 1
    return 2 * groups * first.shape[-2] * first.shape[-1] * second.shape[-1]


def _bytes_of(tensor: Tensor) -> int:
    """Return the bytes of a tensor's elements; those that an expanded tensor repeats count once."""
    stride = tensor.stride()
    num_elements = prod(size for size, step in zip(tensor.shape, stride, strict=True) if step) if 0 in stride else tensor.numel()
    return num_elements * tensor.element_size()


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, Tensor))

"""A model in whatever storage -> the weights that its linear and recurrent layers multiply with, as dense numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.ao.nn.quantized import dynamic

from profiler.compression.sparse_storage import ExpandedLinear, SparseLinear
from profiler.optimizations.nf4 import Nf4Linear

_RECURRENT = (dynamic.LSTM, dynamic.GRU)


def effective_weights(model: nn.Module) -> Iterator[Tensor]:
    """Yield the float matrix of each linear and each recurrent layer, the output layer's among them; no embeddings.

    Args:
        model: any that a technique leaves.
    """
    if isinstance(model, fx.GraphModule):
        yield from _of_graph(model)
        return
    for module in model.modules():
        if isinstance(module, ExpandedLinear):
            yield module.expanded()
        elif isinstance(module, SparseLinear):
            yield module.weight.detach().to_dense()
        elif isinstance(module, Nf4Linear):
            yield module.dequantized(torch.float32)
        elif isinstance(module, dynamic.Linear):
            yield module.weight().dequantize()  # type: ignore[no-untyped-call]
        elif isinstance(module, nn.Linear):
            yield _expanded(module.weight.detach())
        elif isinstance(module, nn.RNNBase):
            yield from (parameter.detach() for parameter in module.parameters(recurse=False) if parameter.ndim == 2)
        elif isinstance(module, _RECURRENT):
            yield from (weight.dequantize() for weight in module.get_weight().values())  # type: ignore[no-untyped-call]


def _expanded(weight: Tensor) -> Tensor:
    """Return the dense numbers of a weight; those of a kind that only multiplies are what it makes of the identity."""
    if type(weight) is Tensor:
        return weight
    if type(weight).dequantize is not Tensor.dequantize:
        dense: Tensor = weight.dequantize()
        return dense
    identity = torch.eye(weight.shape[1], dtype=weight.dtype)
    return nn.functional.linear(identity, weight).t()


def _of_graph(model: fx.GraphModule) -> Iterator[Tensor]:
    """Yield the matrices that an exported model expands from integers, and those that it left as they were; originals are not used."""
    for node in model.graph.nodes:
        if "dequantize_per_channel" in str(node.target):
            yield node.target(*(_constant(model, argument) for argument in node.args))
        elif node.op == "get_attr" and not any("embedding" in str(user.target) for user in node.users):
            value = _constant(model, node)
            if isinstance(value, nn.Parameter) and value.ndim == 2:
                yield value.detach()


def _constant(model: fx.GraphModule, argument: Any) -> Any:
    if not isinstance(argument, fx.Node):
        return argument
    value: Any = model
    for part in str(argument.target).split("."):
        value = getattr(value, part)
    return value

"""Removing neurons of feed-forward layers: smaller matrices rather than zeros."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from profiler.compression.layers import replace_module
from profiler.compression.subject import Subject

_SHAPES = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("intermediate.dense",), "output.dense"),
    (("lin1",), "lin2"),
    (("linear1",), "linear2"),
    (("fc1",), "fc2"),
    (("wi_0", "wi_1"), "wo"),
    (("wi",), "wo"),
)
"""Layers that make the neurons of a feed-forward layer, and the one that takes them, by the names of the models that have them."""


@dataclass(frozen=True)
class FeedForward:
    """One feed-forward layer."""

    parent: nn.Module
    makers: tuple[str, ...]
    taker: str

    def neurons(self) -> Tensor:
        """Return the norm of each neuron's weights, in and out."""
        squares = self.linear(self.taker).weight.detach().square().sum(0)
        for name in self.makers:
            squares = squares + self.linear(name).weight.detach().square().sum(1)
        return squares.sqrt()

    def linear(self, name: str) -> nn.Linear:
        """Return a layer of it."""
        layer = self.parent.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        return layer


def remove_neurons(subject: Subject, amount: float, remove: bool) -> None:
    """Remove the neurons with the smallest norm from each feed-forward layer, or only make their weights zero."""
    found = list(feed_forwards(subject.model))
    for layer in found:
        norms = layer.neurons()
        num_kept = len(norms) - int(len(norms) * amount)
        kept = norms.topk(num_kept).indices.sort().values
        if remove:
            _shrink(layer, kept)
        else:
            _silence(layer, kept)
    if not remove:
        subject.notes.append("The neurons are zeros that are stored and multiplied as before: nothing is saved.")
    subject.note_changed(len(found), "feed-forward layers of a known kind")


def feed_forwards(model: nn.Module) -> Iterator[FeedForward]:
    """Yield a model's feed-forward layers."""
    for parent in list(model.modules()):
        for makers, taker in _SHAPES:
            if all(_is_linear(parent, name) for name in (*makers, taker)):
                yield FeedForward(parent, makers, taker)
                break


def _is_linear(parent: nn.Module, name: str) -> bool:
    try:
        return isinstance(parent.get_submodule(name), nn.Linear)
    except AttributeError:
        return False


def _shrink(layer: FeedForward, kept: Tensor) -> None:
    for name in layer.makers:
        old = layer.linear(name)
        bias = None if old.bias is None else old.bias.detach()[kept]
        replace_module(layer.parent, name, new_linear(old.weight.detach()[kept], bias))
    old = layer.linear(layer.taker)
    bias = None if old.bias is None else old.bias.detach()
    replace_module(layer.parent, layer.taker, new_linear(old.weight.detach()[:, kept], bias))


def _silence(layer: FeedForward, kept: Tensor) -> None:
    gone = torch.ones(len(layer.neurons()), dtype=torch.bool).index_fill(0, kept, False)
    with torch.no_grad():
        for name in layer.makers:
            layer.linear(name).weight[gone] = 0
            if layer.linear(name).bias is not None:
                layer.linear(name).bias[gone] = 0
        layer.linear(layer.taker).weight[:, gone] = 0


def new_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer with copies of these numbers."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype, device="meta")
    layer.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer

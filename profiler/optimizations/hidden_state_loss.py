"""Cross-entropy from hidden states instead of logits, put in the place of a transformers model's own loss. Needs torch; for workers.

A model of transformers calls its output layer and then ``loss_function(logits=..., labels=...)``. Here the output layer keeps its input
for the loss function, which multiplies by the layer's weight itself, some tokens at a time; the model's logits are empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import LinearCrossEntropyOptions, functional
from torch.utils.checkpoint import checkpoint

from profiler.errors import SpecError

_IGNORED = -100
"""The label of tokens that do not count; cross_entropy's default."""
_SCALES_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Configuration fields of models that change logits before their loss."""

HiddenStateLoss = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""The mean cross-entropy, a scalar, of tokens x hidden states, one label a token, and the output layer's weight and bias."""


def with_loss(model: nn.Module, loss: HiddenStateLoss) -> nn.Module:
    """Return ``model``, which from now on computes its loss by ``loss`` and hands out no logits.

    Raises:
        SpecError: its output layer or what it does with logits is not known.
    """
    whole: Any = getattr(model, "get_base_model", lambda: model)()  # peft wraps it
    layer = whole.get_output_embeddings()
    scaling = [name for name in _SCALES_LOGITS if getattr(whole.config, name, None) not in (None, 1, 1.0)]
    if scaling or type(layer) is not nn.Linear:
        found = f"changes its logits ({scaling[0]})" if scaling else f"has an output layer of type {type(layer).__name__}"
        raise SpecError(f"{type(whole).__name__} {found}, for which no loss without logits is known here. Leave its loss as it is.")
    whole.loss_function = _NextTokenLoss(layer, loss)
    return model


class _NextTokenLoss:
    """What transformers' ForCausalLMLoss computes, each token predicting the next, without logits."""

    def __init__(self, layer: nn.Linear, loss: HiddenStateLoss) -> None:
        self._weight, self._bias, self._loss = layer.weight, layer.bias, loss  # not the layer, which refers to this: a cycle
        self._hidden: Tensor | None = None
        layer.forward = self._keep  # type: ignore[assignment, method-assign]

    def _keep(self, hidden: Tensor) -> Tensor:
        self._hidden = hidden
        return hidden.new_empty((*hidden.shape[:-1], 0))

    def __call__(self, logits: Tensor, labels: Tensor, **_: Any) -> Tensor:
        hidden, self._hidden = self._hidden, None
        assert hidden is not None, "the output layer is called before the loss"
        following = functional.pad(labels, (0, 1), value=_IGNORED)[..., 1:].contiguous()
        return self._loss(hidden.reshape(-1, hidden.shape[-1]), following.view(-1), self._weight, self._bias)


def chunked(hidden: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, *, num_chunks: int) -> Tensor:
    """Sum the loss of chunk after chunk, each of which keeps its hidden states only and is computed again in backward."""
    losses = [
        checkpoint(_summed, part, wanted, weight, bias, use_reentrant=False, preserve_rng_state=False)
        for part, wanted in zip(hidden.chunk(num_chunks), labels.chunk(num_chunks), strict=True)
    ]
    total: Tensor = torch.stack(losses).sum()
    return total / (labels != _IGNORED).sum()


def _summed(hidden: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits = functional.linear(hidden, weight, bias)
    return functional.cross_entropy(logits.float(), labels, ignore_index=_IGNORED, reduction="sum")


def fused(hidden: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, *, num_tokens: int) -> Tensor:
    """Let torch compute the loss in chunks, and the gradients with it.

    Args:
        hidden: tokens x hidden size.
        labels: one a token.
        weight: of the output layer.
        bias: of the output layer.
        num_tokens: of a chunk; 0 for torch's choice.
    """
    options = LinearCrossEntropyOptions(batch_chunk_size=num_tokens) if num_tokens else LinearCrossEntropyOptions()
    return functional.linear_cross_entropy(hidden, weight, labels, linear_bias=bias, ignore_index=_IGNORED, options=options)

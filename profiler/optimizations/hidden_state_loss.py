"""Cross-entropy from hidden states instead of logits, put in the place of a transformers model's own loss. Needs torch; for workers.

A model of transformers calls its output layer and then ``loss_function(logits=..., labels=...)``. Here the output layer hands the hidden
states on, and the loss function multiplies by the layer's weight itself, some tokens at a time.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import LinearCrossEntropyOptions, functional
from torch.utils.checkpoint import checkpoint

from profiler.errors import SpecError

_IGNORED = -100
"""The label of tokens that do not count; cross_entropy's default."""
_SCALES_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Configuration fields of models that change logits before their loss."""


class HiddenStateLoss(Protocol):
    """The mean cross-entropy of tokens x hidden states and tokens' labels, through the output layer."""

    def __call__(self, hidden: Tensor, labels: Tensor, layer: nn.Linear) -> Tensor:
        """Return a scalar."""


def with_loss(model: nn.Module, loss: HiddenStateLoss) -> nn.Module:
    """Return ``model``, which from now on computes its loss by ``loss`` and hands out hidden states in the place of logits.

    Raises:
        SpecError: its output layer or what it does with logits is not known.
    """
    whole: Any = getattr(model, "get_base_model", lambda: model)()  # peft wraps it
    layer = whole.get_output_embeddings()
    scaling = [name for name in _SCALES_LOGITS if getattr(whole.config, name, None) not in (None, 1, 1.0)]
    if scaling or type(layer) is not nn.Linear:
        found = f"changes its logits ({scaling[0]})" if scaling else f"has an output layer of type {type(layer).__name__}"
        raise SpecError(
            f"{type(whole).__name__} {found}, which a loss from hidden states does not know. Switch chunked-loss or fused-loss off."
        )
    layer.forward = lambda hidden: hidden  # type: ignore[method-assign]
    whole.loss_function = partial(_next_token_loss, layer, loss)
    return model


def _next_token_loss(layer: nn.Linear, loss: HiddenStateLoss, logits: Tensor, labels: Tensor, **_: Any) -> Tensor:
    """Do what transformers' ForCausalLMLoss does, where ``logits`` are the hidden states: each token predicts the next."""
    following = functional.pad(labels, (0, 1), value=_IGNORED)[..., 1:].contiguous()
    return loss(logits.reshape(-1, logits.shape[-1]), following.view(-1), layer)


def chunked(hidden: Tensor, labels: Tensor, layer: nn.Linear, *, num_chunks: int) -> Tensor:
    """Sum the loss of chunk after chunk, each of which keeps its hidden states only and is computed again in backward."""
    parts = zip(hidden.chunk(num_chunks), labels.chunk(num_chunks), strict=True)
    losses = [
        checkpoint(_summed, part, wanted, layer.weight, layer.bias, use_reentrant=False, preserve_rng_state=False) for part, wanted in parts
    ]
    total: Tensor = torch.stack(losses).sum()
    return total / (labels != _IGNORED).sum()


def _summed(hidden: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits = functional.linear(hidden, weight, bias)
    return functional.cross_entropy(logits.float(), labels, ignore_index=_IGNORED, reduction="sum")


def fused(hidden: Tensor, labels: Tensor, layer: nn.Linear, *, num_tokens: int, device_type: str) -> Tensor:
    """Let torch compute the loss in chunks, and the gradients with it.

    Args:
        hidden: tokens x hidden size.
        labels: one a token.
        layer: the output layer.
        num_tokens: of a chunk; 0 for torch's choice.
        device_type: cpu or cuda.
    """
    options = LinearCrossEntropyOptions(batch_chunk_size=num_tokens) if num_tokens else LinearCrossEntropyOptions()
    return functional.linear_cross_entropy(hidden, layer.weight, labels, linear_bias=layer.bias, ignore_index=_IGNORED, options=options)

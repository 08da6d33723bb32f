"""A recurrent language model: embedding, LSTM or GRU layers, linear output.

Shaped like the models of transformers, so that workloads need not know which they run: called with ``input_ids``, ``labels`` and
``past_key_values`` (here the hidden state), it returns ``loss``, ``logits`` and ``past_key_values``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HiddenState = Tensor | tuple[Tensor, Tensor]


@dataclass
class RecurrentOutput:
    """What one call returns."""

    loss: Tensor | None
    """Mean cross entropy of the next token; None without labels."""
    logits: Tensor
    """Batch x sequence x vocabulary."""
    past_key_values: HiddenState | None
    """The hidden state after the last token, layers x batch x hidden (with the LSTM's cell state); None unless ``use_cache``."""


class RecurrentLM(nn.Module):
    """Embedding, recurrent layers, linear output layer.

    Args:
        config: ``model_type`` (lstm or gru), ``vocab_size``, ``embedding_size``, ``hidden_size``, ``num_hidden_layers``, ``dropout``.
        dtype: of the parameters.
    """

    def __init__(self, config: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        vocab_size, hidden_size = config["vocab_size"], config["hidden_size"]
        embedding_size = config.get("embedding_size", hidden_size)
        num_layers, dropout = config["num_hidden_layers"], config.get("dropout", 0.0)
        layers = nn.LSTM if config["model_type"] == "lstm" else nn.GRU
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Embedding(vocab_size, embedding_size, dtype=dtype)
        between_layers = dropout if num_layers > 1 else 0.0
        self.layers = layers(embedding_size, hidden_size, num_layers, dropout=between_layers, batch_first=True, dtype=dtype)
        self.output = nn.Linear(hidden_size, vocab_size, dtype=dtype)

    def get_input_embeddings(self) -> nn.Module:
        """Return the layer that turns token ids into vectors."""
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        """Return the layer that makes the logits."""
        return self.output

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        past_key_values: HiddenState | None = None,
        use_cache: bool = False,
    ) -> RecurrentOutput:
        """Return the logits of every token, and the loss where labels (equal to the ids; -100 is ignored) are given."""
        embedded = self.dropout(self.embedding(input_ids))
        hidden, state = self.layers(embedded, past_key_values)
        logits = self.output(self.dropout(hidden))
        loss = None if labels is None else _next_token_loss(logits, labels)
        return RecurrentOutput(loss, logits, state if use_cache else None)


def _next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross entropy in float32; the labels are shifted, not the logits, which would copy them."""
    shifted = functional.pad(labels, (0, 1), value=-100)[..., 1:]
    return functional.cross_entropy(logits.float().flatten(0, 1), shifted.flatten(), ignore_index=-100)

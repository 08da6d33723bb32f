"""The lab's language models of bytes: a small Llama and an LSTM, and what they are trained and judged on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from profiler.compression.lab import corpus
from profiler.compression.lab.checkpoint import read_into
from profiler.compression.lab.recipes import RECIPES
from profiler.compression.lab.windows import anywhere, byte_values, spread
from profiler.compression.task import Batch
from profiler.models.build import build_model
from profiler.spec import Model

LENGTH = 128
BATCH = 16
HELD_OUT_WINDOWS = 128

_LLAMA = {
    "model_type": "llama",
    "vocab_size": 256,
    "num_hidden_layers": 4,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 384,
    "max_position_embeddings": 512,
}
_SMALL_LLAMA = _LLAMA | {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 192}
_LSTM = {"model_type": "lstm", "vocab_size": 256, "num_hidden_layers": 2, "embedding_size": 64, "hidden_size": 128}
_SMALL_LSTM = _LSTM | {"embedding_size": 16, "hidden_size": 40}


class LanguageTask:
    """Predicting the next byte of the language reference.

    Args:
        name: of the recipe, by which the weights are found.
        head: the output layer's name.
        config: of the model.
        small: of a student.
    """

    unit = "byte"

    def __init__(self, name: str, head: str, config: Mapping[str, Any], small: Mapping[str, Any]) -> None:
        self.name, self.head = name, head
        self._config, self._small = dict(config), dict(small)

    def build(self) -> nn.Module:
        """Return the model with the shipped weights."""
        return read_into(self.untrained(0), RECIPES[self.name].weights)

    def untrained(self, seed: int) -> nn.Module:
        """Return the model with random weights."""
        return _random(self.name, self._config, seed)

    def smaller(self, seed: int) -> nn.Module:
        """Return a student with random weights."""
        return _random(self.name, self._small, seed)

    def held_out(self) -> Sequence[Batch]:
        """Return 16 KiB of text that is not trained on, in windows evenly spread."""
        return spread(byte_values(corpus.text(corpus.held_out())), LENGTH, HELD_OUT_WINDOWS, BATCH)

    def training(self, seed: int) -> Iterator[Batch]:
        """Yield windows that begin anywhere in the text to train on."""
        return anywhere(byte_values(corpus.text(corpus.training())), LENGTH, BATCH, seed)

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return what the model thinks of each next byte."""
        logits: Tensor = model(input_ids=inputs).logits
        return logits


llama = partial(LanguageTask, "lab", "lm_head", _LLAMA, _SMALL_LLAMA)
lstm = partial(LanguageTask, "lab-lstm", "output", _LSTM, _SMALL_LSTM)


def _random(name: str, config: dict[str, Any], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(Model.from_config(name, config)).eval()

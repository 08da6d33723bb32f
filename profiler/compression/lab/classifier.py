"""The lab's classifier: a small BERT that tells from some thirty words which chapter of the language reference they are of.

A word's number is its CRC-32 modulo the vocabulary's size, so there is no vocabulary to ship; words that share a number are rare enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from profiler.compression.lab import chapters, corpus
from profiler.compression.lab.chapters import CHAPTERS, NUM_WORDS
from profiler.compression.lab.checkpoint import read_into
from profiler.compression.lab.recipes import RECIPES
from profiler.compression.task import Batch

_FIRST = 0
"""The token before the words, from whose place the answer is read."""
_VOCABULARY = 2048
_BATCH = 32
_SHAPE = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
_SMALL_SHAPE = {"num_hidden_layers": 1, "hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 24}


class ClassifierTask:
    """Chapter of a piece of text; chance is about one in seven."""

    name = "lab-classifier"
    unit = "document"
    head = "classifier"

    def build(self) -> nn.Module:
        """Return the model with the shipped weights."""
        return read_into(self.untrained(0), RECIPES[self.name].weights)

    def untrained(self, seed: int) -> nn.Module:
        """Return the model with random weights."""
        return _random(seed, _SHAPE)

    def smaller(self, seed: int) -> nn.Module:
        """Return a student with random weights."""
        return _random(seed, _SMALL_SHAPE)

    def held_out(self) -> Sequence[Batch]:
        """Return pieces of the paragraphs that are not trained on, evenly spread, in batches as large as those to train on."""
        pieces = [words.unfold(0, NUM_WORDS, NUM_WORDS) for words in _numbers(corpus.held_out())]
        labels = torch.cat([torch.full((len(some),), label) for label, some in enumerate(pieces)])
        chosen = torch.linspace(0, len(labels) - 1, len(labels) // _BATCH * _BATCH).long().view(-1, _BATCH)
        inputs = _started(torch.cat(pieces))
        return [Batch(inputs[some], labels[some]) for some in chosen]

    def training(self, seed: int) -> Iterator[Batch]:
        """Yield pieces that begin anywhere in a chapter, each chapter as often as any other."""
        sources = _numbers(corpus.training())
        generator = torch.Generator().manual_seed(seed)
        while True:
            labels = torch.randint(0, len(sources), (_BATCH,), generator=generator)
            starts = [int(torch.randint(0, len(sources[label]) - NUM_WORDS, (), generator=generator)) for label in labels]
            pieces = [sources[label][start : start + NUM_WORDS] for label, start in zip(labels, starts, strict=True)]
            yield Batch(_started(torch.stack(pieces)), labels)

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return what the model thinks of each chapter."""
        logits: Tensor = model(input_ids=inputs).logits
        return logits


def _numbers(some: Sequence[corpus.Paragraph]) -> list[Tensor]:
    """Return the words of each chapter as numbers."""
    return [torch.tensor([1 + crc32(word) % (_VOCABULARY - 1) for word in words]) for words in chapters.words(some)]


def _started(words: Tensor) -> Tensor:
    return nn.functional.pad(words, (1, 0), value=_FIRST)


def _random(seed: int, shape: dict[str, Any]) -> nn.Module:
    torch.manual_seed(seed)
    shape = {
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": 1 + NUM_WORDS,
        "num_labels": len(CHAPTERS),
        "hidden_dropout_prob": 0.3,
        **shape,
    }
    model: nn.Module = BertForSequenceClassification(BertConfig(**shape))
    return model.eval()

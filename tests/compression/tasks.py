"""A task of a few thousand parameters, quickly made: the shape of the lab's models without their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from profiler.compression.task import Batch


class TinyTask:
    """A Llama of bytes with random weights, on text that repeats.

    Args:
        hidden: width.
        inner: neurons of a feed-forward layer.
        num_layers: blocks.
        tied: the output layer shares the embedding's weight.
    """

    name = "tiny"
    unit = "byte"
    head = "lm_head"

    def __init__(
        self, hidden: int = 64, inner: int = 192, num_layers: int = 2, seq: int = 32, batch: int = 4, *, tied: bool = False
    ) -> None:
        self.shape = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": num_layers}
        self.seq, self.batch, self.tied = seq, batch, tied

    def build(self) -> nn.Module:
        return self._model(seed=1, **self.shape)

    def smaller(self, seed: int) -> nn.Module:
        return self._model(seed=seed, hidden_size=32, intermediate_size=64, num_hidden_layers=1)

    def held_out(self) -> Sequence[Batch]:
        return [self._batch(torch.Generator().manual_seed(99)) for _ in range(2)]

    def training(self, seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield self._batch(generator)

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=inputs, use_cache=False).logits
        return logits

    def _batch(self, generator: torch.Generator) -> Batch:
        start = torch.randint(0, 200, (self.batch, 1), generator=generator)
        text = (start + 3 * torch.arange(self.seq + 1)) % 256
        return Batch(text[:, :-1].contiguous(), text[:, 1:].contiguous())

    def _model(self, seed: int, **shape: Any) -> nn.Module:
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=256,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=self.tied,
            **shape,
        )
        return LlamaForCausalLM(config).eval().float()


class RecurrentTask(TinyTask):
    """The same with an LSTM."""

    head = "head"

    def build(self) -> nn.Module:
        torch.manual_seed(1)
        return Recurrent(32, 48).eval()

    def smaller(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return Recurrent(8, 16).eval()

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        logits: Tensor = model(inputs)
        return logits


class ClassifierTask(TinyTask):
    """A BERT of two blocks that tells four kinds of text apart."""

    unit = "document"
    head = "classifier"

    def build(self) -> nn.Module:
        return self._bert(seed=1, layers=2)

    def smaller(self, seed: int) -> nn.Module:
        return self._bert(seed=seed, layers=1)

    def _bert(self, seed: int, layers: int) -> nn.Module:
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(seed)
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 2}
        return BertForSequenceClassification(BertConfig(vocab_size=256, max_position_embeddings=64, num_labels=4, **shape)).eval()

    def _batch(self, generator: torch.Generator) -> Batch:
        batch = super()._batch(generator)
        return Batch(batch.inputs, batch.inputs[:, 0] // 64)

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=inputs).logits
        return logits


class WideTask(TinyTask):
    """Layers so wide that a copy of their weights stands out in a resident set: 17 million numbers, 64 MiB of them in four matrices."""

    head = "5"

    def build(self) -> nn.Module:
        torch.manual_seed(1)
        inner = [nn.Linear(2048, 2048, bias=False) for _ in range(4)]
        return nn.Sequential(nn.Embedding(256, 2048), *inner, nn.Linear(2048, 256, bias=False)).eval()

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        logits: Tensor = model(inputs)
        return logits


class Recurrent(nn.Module):
    """Embedding, LSTM, output layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.lstm = nn.LSTM(width, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, 256)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.embedding(inputs))
        logits: Tensor = self.head(hidden)
        return logits


def load(name: str) -> TinyTask:
    """Return the task of a name, as `profiler.compression.lab.load` does."""
    return {"tiny-lstm": RecurrentTask, "tiny-bert": ClassifierTask, "wide": WideTask}.get(name, TinyTask)()

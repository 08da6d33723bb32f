"""A task of three layers, on which libraries are warmed up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from profiler.compression.task import Batch

_WIDTH = 128
_CLASSES = 256


class FewLayers:
    """Embedding, linear layer, output layer; random."""

    name = "few-layers"
    unit = "byte"
    head = "2"

    def build(self) -> nn.Module:
        """Return the layers."""
        return nn.Sequential(nn.Embedding(_CLASSES, _WIDTH), nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, _CLASSES)).eval()

    def smaller(self, seed: int) -> nn.Module:
        """Return the layers again: nothing is distilled here."""
        return self.build()

    def held_out(self) -> Sequence[Batch]:
        """Return one batch."""
        return [next(self.training(0))]

    def training(self, seed: int) -> Iterator[Batch]:
        """Yield the same batch without end."""
        inputs = torch.arange(2 * _WIDTH).view(2, _WIDTH) % _CLASSES
        while True:
            yield Batch(inputs, inputs)

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return what the layers give; those of a lower precision take what the one before gives."""
        logits: Tensor = model(inputs)
        return logits

"""What a model of the lab gives the experiments: a frozen baseline, batches to train on, held-out batches, logits.

The lab's models are tasks: ``profiler.compression.lab.load(name)`` returns one, and ``profiler.compression.lab.MODELS`` names them without
loading torch (name -> a description with ``label``, ``needs`` and ``fingerprint()``, a digest of the weights). Only workers import this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]
"""Inputs -> logits."""
IGNORED = -100
"""A target that counts nowhere, as torch's cross entropy has it."""


@dataclass(frozen=True)
class Batch:
    """Inputs and what the model should say of them."""

    inputs: Tensor
    """int64 [batch, length]: bytes, tokens or words; of an encoder and decoder, what one reads and behind it what the other is given."""
    targets: Tensor
    """int64: [batch, length] of a language model, already shifted; [batch] of a classifier; `IGNORED` where there is none."""


class Task(Protocol):
    """A model with something to lose, and the data that tell how well it does."""

    name: str
    unit: str
    """What the loss is an average over: ``byte``, ``token``, ``word`` or ``document``."""
    head: str
    """The dotted name of the output layer, which pruning leaves alone."""

    def build(self) -> nn.Module:
        """Return a fresh copy of the frozen baseline: float32, in evaluation mode, the same numbers each time."""

    def smaller(self, seed: int) -> nn.Module:
        """Return an untrained student for distillation, of the same kind and about an eighth of the parameters."""

    def held_out(self) -> Sequence[Batch]:
        """Return the batches by which quality is judged; the same each time, and none of them trained on."""

    def training(self, seed: int) -> Iterator[Batch]:
        """Yield batches to train on without end, in an order that the seed decides."""

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return float logits of ``model``, or of what became of it: the targets' shape and one dimension more, the classes."""


@runtime_checkable
class OfTokens(Protocol):
    """A task whose targets are tokens of a text, so that its loss can be told per byte of that text, too."""

    def text_bytes(self, tokens: Tensor) -> int:
        """Return how many bytes of text tokens stand for."""


@runtime_checkable
class Translates(Protocol):
    """A task whose model says something by itself, which is held against what it should have said."""

    def bleu(self, forward: Forward) -> float:
        """Return the BLEU, 0 to 100, of what a model says of all that is held out.

        Args:
            forward: inputs -> logits, of batches of one shape.
        """

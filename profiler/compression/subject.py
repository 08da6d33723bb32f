"""The model that an experiment works on, and what the techniques of a pipeline leave for those that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from profiler.compression.files import StateFile, WeightFile
from profiler.compression.layers import Matrix, matrices
from profiler.compression.task import Task


def _silent(phase: str, share: float) -> None:
    del phase, share


@dataclass
class Subject:
    """What techniques change."""

    task: Task
    model: nn.Module
    """What is there now; float32 and in evaluation mode at the start."""
    seed: int = 0
    folder: Path = field(default_factory=Path)
    """For temporary files."""
    masks: dict[str, Tensor] = field(default_factory=dict)
    """By a matrix's name, True where a weight was pruned away; training keeps those at zero."""
    codebooks: dict[str, Tensor] = field(default_factory=dict)
    """By a matrix's name, the values that its weights share."""
    forward: Callable[[Tensor], Tensor] | None = None
    """Inputs -> logits, where the model is no longer called as the task calls it."""
    file: WeightFile = field(default_factory=StateFile)
    """How the model is written."""
    only: str | None = None
    """The name of the one matrix to work on, for techniques that can; None: all."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the user."""
    extra: dict[str, float] = field(default_factory=dict)
    """What the technique at work counted; keys say their unit."""
    control: Callable[[], float] | None = None
    """Trains what the technique at work is to be judged beside and returns its loss; called when the technique itself was measured."""
    tell: Callable[[str, float], None] = _silent
    """Called with a phase and the share of it that is done, 0 to 1; what it raises ends the work."""

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the model's logits of inputs, as `Task.logits` says."""
        return self.forward(inputs) if self.forward else self.task.logits(self.model, inputs)

    def matrices(self) -> list[Matrix]:
        """Return the matrices to work on: all but those of the output layer, or the one of `only`."""
        return [matrix for matrix in matrices(self.model, self.task.head) if self.only in (None, matrix.name)]

    def linears(self) -> dict[str, nn.Linear]:
        """Return the linear layers to work on by name, the output layer among them."""
        layers = {name: module for name, module in self.model.named_modules() if isinstance(module, nn.Linear)}
        return {name: layer for name, layer in layers.items() if self.only in (None, f"{name}.weight")}

    def note_changed(self, num_layers: int, what: str) -> None:
        """Say how many layers a technique changed; that it changed none is what users must hear."""
        self.notes.append(f"{num_layers} layers changed: {what}." if num_layers else f"0 layers changed: this model has no {what}.")
        self.extra["num_layers_changed"] = float(num_layers)

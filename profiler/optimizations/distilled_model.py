"""A student and its teacher -> one model, whose loss asks for the teacher's predictions too. Needs torch; for workers."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional


class DistilledModel(nn.Module):
    """Trains a student on the labels and on what a frozen teacher predicts.

    Args:
        student: is trained.
        teacher: of the same vocabulary; is frozen, and never in training mode.
        temperature: by which both sides' logits are divided where they are compared.
        share: of the teacher's part in the loss, 0 to 1.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, temperature: float, share: float) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher.requires_grad_(False).eval()
        self.temperature, self.share = temperature, share

    def train(self, mode: bool = True) -> Self:
        """Switch the student's mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def get_output_embeddings(self) -> Any:
        """Return the student's layer that makes the logits."""
        return self.student.get_output_embeddings()  # type: ignore[operator]

    def forward(self, labels: Tensor, **inputs: Any) -> Any:
        """Return the student's outputs, with the loss of both parts: mean cross entropy, and mean divergence a token x temperature^2."""
        outputs = self.student(labels=labels, **inputs)
        with torch.no_grad():
            wanted = functional.softmax(self.teacher(**inputs).logits / self.temperature, dim=-1)
        said = functional.log_softmax(outputs.logits / self.temperature, dim=-1)
        divergence = functional.kl_div(said.flatten(0, -2), wanted.flatten(0, -2), reduction="batchmean")
        outputs.loss = (1 - self.share) * outputs.loss + self.share * self.temperature**2 * divergence
        return outputs

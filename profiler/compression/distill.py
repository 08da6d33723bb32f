"""Distillation: a smaller model trained on another's probabilities, and the same model trained without, beside it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from profiler.compression.fine_tune import control_loss, cross_entropy, first_half, train
from profiler.compression.quality import counted
from profiler.compression.subject import Subject
from profiler.compression.task import Batch


def distill(subject: Subject, steps: int, lr: float, temperature: float, weight: float) -> None:
    """Put a trained student in the model's place; its control is the same student, trained on the data alone."""
    task, teacher = subject.task, subject.model

    def taught(logits: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            target, _ = counted(task.logits(teacher, batch.inputs), batch)
        return weight * soft_loss(counted(logits, batch)[0], target, temperature) + (1 - weight) * cross_entropy(logits, batch)

    student = task.smaller(subject.seed)
    train(task, student, steps=steps, lr=lr, seed=subject.seed, loss=taught, tell=first_half(subject.tell))
    untaught = partial(train, task, steps=steps, lr=lr, seed=subject.seed)
    subject.model, subject.control = student, partial(control_loss, subject, partial(task.smaller, subject.seed), untaught)
    subject.note_changed(1, "student")


def soft_loss(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the divergence of softened probabilities, times temperature squared so that gradients keep their size (Hinton et al. 2015)."""
    ours, theirs = (x.float().reshape(-1, x.shape[-1]) / temperature for x in (logits, target))
    return nn.functional.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), log_target=True, reduction="batchmean") * temperature**2

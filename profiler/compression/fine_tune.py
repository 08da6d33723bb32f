"""Training in the lab: to recover what a technique lost, with the untouched model trained beside it, and students of a teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from profiler.compression.quality import evaluate
from profiler.compression.subject import Subject
from profiler.compression.task import Batch, Task

Loss = Callable[[Tensor, Batch], Tensor]
"""Logits and their batch -> what to make small."""
Tell = Callable[[str, float], None]
"""Called with a phase and the share of it that is done."""


class Tune(Protocol):
    """A way to train a model, its steps and rate settled."""

    def __call__(self, model: nn.Module, *, tell: Tell | None = None) -> object:
        """Train the model, which is changed."""


_MAX_GRADIENT_NORM = 1.0


def recover(subject: Subject, steps: int, lr: float) -> None:
    """Train the subject's model, zeros of pruning kept; its control is the untouched model, trained in the same way."""
    tuned = partial(train, subject.task, steps=steps, lr=lr, seed=subject.seed)
    tuned(subject.model, masks=zeros_of_pruning(subject), tell=first_half(subject.tell))
    subject.control = partial(control_loss, subject, subject.task.build, tuned)


def zeros_of_pruning(subject: Subject) -> dict[str, Tensor]:
    """Return by name, for matrices that were pruned, where a weight is zero now: a matrix that was cut is smaller than its mask."""
    return {matrix.name: matrix.weight.detach() == 0 for matrix in subject.matrices() if matrix.name in subject.masks}


def control_loss(subject: Subject, make: Callable[[], nn.Module], tune: Tune) -> float:
    """Train what ``make`` returns as the subject's model was, on the data alone, and return its loss: the second half of the work."""
    task, control = subject.task, make()
    tune(control, tell=lambda phase, share: subject.tell(phase, (1 + share) / 2))
    return evaluate(partial(task.logits, control), task.held_out()).loss


def first_half(tell: Tell) -> Tell:
    """Return what tells of training whose control is trained afterwards."""
    return lambda phase, share: tell(phase, share / 2)


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean cross entropy in nats."""
    return nn.functional.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), batch.targets.reshape(-1))


def train(
    task: Task,
    model: nn.Module,
    *,
    steps: int,
    lr: float,
    seed: int,
    loss: Loss = cross_entropy,
    masks: dict[str, Tensor] | None = None,
    tell: Tell | None = None,
) -> None:
    """Train those parameters that want gradients, with AdamW and a rate that decays to zero; evaluation mode again afterwards.

    Args:
        task: what the batches are from and how the model is called.
        model: is changed.
        steps: of training.
        lr: the highest rate, at the start.
        seed: of the batches' order and of dropout.
        loss: by default the cross entropy.
        masks: by a parameter's name, True where it stays zero.
        tell: called after each step with the share that is done.
    """
    torch.manual_seed(seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    named = dict(model.named_parameters())
    kept_zero = [(named[name], mask) for name, mask in (masks or {}).items()]
    batches = task.training(seed)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        batch = next(batches)
        loss(task.logits(model, batch.inputs), batch).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, _MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for parameter, mask in kept_zero:
                parameter.masked_fill_(mask, 0.0)
        if tell:
            tell("training", (step + 1) / steps)
    model.eval()

"""How well a model does on held-out batches, and how near it is to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from profiler.compression.result import Quality
from profiler.compression.task import IGNORED, Batch, Forward, OfTokens, Task, Translates


def judge(task: Task, forward: Forward) -> Quality:
    """Return how well a model does on what its task holds out: loss, accuracy, and BLEU where it translates."""
    quality = evaluate(forward, task.held_out())
    return replace(quality, bleu=task.bleu(forward)) if isinstance(task, Translates) else quality


def judged_by(task: Task) -> tuple[int, int | None]:
    """Return how many targets qualities are averages over, and how many bytes of text these are; None where they are no text."""
    targets = torch.cat([batch.targets.flatten() for batch in task.held_out()])
    targets = targets[targets != IGNORED]
    if isinstance(task, OfTokens):
        return len(targets), task.text_bytes(targets)
    return len(targets), len(targets) if task.unit == "byte" else None


def scorers(quality: Quality) -> dict[str, str]:
    """Return how what is beside loss and accuracy was computed, by its name."""
    if quality.bleu is None:
        return {}
    from profiler.compression.bleu import signature

    return {"bleu": signature()}


def evaluate(forward: Forward, batches: Sequence[Batch]) -> Quality:
    """Return the loss and accuracy over all targets of the batches."""
    loss = correct = 0.0
    count = 0
    with torch.no_grad():
        for batch in batches:
            logits, targets = counted(forward(batch.inputs), batch)
            loss += float(nn.functional.cross_entropy(logits, targets, reduction="sum"))
            correct += float((logits.argmax(-1) == targets).sum())
            count += len(targets)
    return Quality(loss=loss / count, accuracy=correct / count)


def agreement(forward: Forward, original: Forward, batches: Sequence[Batch]) -> tuple[float, float]:
    """Return the share of targets for which both models' largest logits are of the same class, and the mean divergence in nats.

    Args:
        forward: the model.
        original: what it should be like; the divergence is Kullback-Leibler, from it.
        batches: held-out ones.
    """
    same = divergence = 0.0
    count = 0
    with torch.no_grad():
        for batch in batches:
            ours, targets = counted(forward(batch.inputs), batch)
            theirs, _ = counted(original(batch.inputs), batch)
            same += float((ours.argmax(-1) == theirs.argmax(-1)).sum())
            difference = nn.functional.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), log_target=True, reduction="sum")
            divergence += float(difference)
            count += len(targets)
    return same / count, max(0.0, divergence / count)


def counted(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return float logits and targets, one a row, those that count."""
    logits, targets = logits.float().reshape(-1, logits.shape[-1]), batch.targets.reshape(-1)
    some = targets != IGNORED
    return logits[some], targets[some]

"""Matrices as products of thin ones: factors of the trained weights, and additions that are trained and merged."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from profiler.compression.fine_tune import train
from profiler.compression.held import held_bytes
from profiler.compression.layers import replace_module
from profiler.compression.structured import new_linear
from profiler.compression.subject import Subject


def factorize(subject: Subject, rank: int) -> None:
    """Put two thin layers in place of each linear layer for which that takes fewer numbers."""
    found = [matrix for matrix in subject.matrices() if matrix.linear]
    thin = [matrix for matrix in found if rank * sum(matrix.weight.shape) < matrix.weight.numel()]
    for done, matrix in enumerate(thin):
        outer, inner = factors(matrix.weight.detach(), rank)
        bias: Tensor | None = matrix.module.bias  # type: ignore[assignment]
        pair = nn.Sequential(new_linear(inner, None), new_linear(outer, None if bias is None else bias.detach()))
        replace_module(subject.model, matrix.name.removesuffix(".weight"), pair)
        subject.tell("factorizing", (done + 1) / len(thin))
    if len(thin) < len(found):
        subject.notes.append(f"{len(found) - len(thin)} layers stay whole: two factors of rank {rank} would have more numbers.")
    subject.note_changed(len(thin), f"linear layers that rank {rank} makes smaller")


def factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the two matrices of a rank whose product is nearest to ``weight``, each with half of the singular values."""
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def train_and_merge(subject: Subject, rank: int, steps: int, lr: float) -> None:
    """Train low-rank additions to the matrices with everything else frozen, and add them in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.tuners_utils import BaseTunerLayer

    names = [matrix.name.removesuffix(".weight") for matrix in subject.matrices() if matrix.linear]
    if not names:
        subject.note_changed(0, "linear layers")
        return
    torch.manual_seed(subject.seed)
    model = inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), subject.model)
    subject.extra["unmerged_bytes"] = float(held_bytes(model))
    subject.extra["trained_parameters"] = float(sum(p.numel() for p in model.parameters() if p.requires_grad))
    train(subject.task, model, steps=steps, lr=lr, seed=subject.seed, tell=subject.tell)
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            replace_module(model, name, module.get_base_layer())
    subject.model = model.requires_grad_(True)
    subject.note_changed(len(names), "linear layers")

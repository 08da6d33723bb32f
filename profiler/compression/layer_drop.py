"""Dropping whole blocks: those that change what passes through them least."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from profiler.compression.layers import blocks
from profiler.compression.subject import Subject


def drop_layers(subject: Subject, count: int) -> None:
    """Drop the blocks whose output is most like their input, on a batch to train on; at least one block stays."""
    found = blocks(subject.model)
    if found is None:
        subject.note_changed(0, "blocks to drop")
        return
    if count >= len(found):
        subject.notes.append(f"The model has {len(found)} blocks: one stays.")
    alike = similarities(subject, found)
    gone = sorted(range(len(found)), key=lambda index: -alike[index])[: min(count, len(found) - 1)]
    for index in sorted(gone, reverse=True):
        del found[index]
    _renumber(subject.model, found)
    subject.notes.append(f"Blocks {', '.join(str(index + 1) for index in sorted(gone))} went.")
    subject.note_changed(len(gone), "blocks to drop")


def similarities(subject: Subject, found: nn.ModuleList) -> list[float]:
    """Return the mean cosine of each block's output and input."""
    seen: dict[int, float] = {}

    def look(index: int) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            before = arguments[0] if arguments else named["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            seen[index] = float(nn.functional.cosine_similarity(before, after, dim=-1).mean())

        return hook

    handles = [block.register_forward_hook(look(index), with_kwargs=True) for index, block in enumerate(found)]
    with torch.no_grad():
        inputs: Tensor = next(iter(subject.task.training(subject.seed))).inputs
        subject.logits(inputs)
    for handle in handles:
        handle.remove()
    return [seen[index] for index in range(len(found))]


def _renumber(model: nn.Module, found: nn.ModuleList) -> None:
    """Tell the model how many blocks there are, and each block its place, where they keep that."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "num_hidden_layers"):
            config.num_hidden_layers = len(found)  # type: ignore[union-attr]
    for index, block in enumerate(found):
        for module in block.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = index  # type: ignore[assignment]

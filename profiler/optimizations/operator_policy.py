"""Which operators' results selective checkpointing keeps. Needs torch; for workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, SelectiveCheckpointContext, create_selective_checkpoint_contexts

_aten = torch.ops.aten

_ATTENTION = frozenset(
    (
        _aten._scaled_dot_product_flash_attention.default,
        _aten._scaled_dot_product_efficient_attention.default,
        _aten._scaled_dot_product_cudnn_attention.default,
        _aten._scaled_dot_product_flash_attention_for_cpu.default,
    )
)
_MATMULS = frozenset((_aten.mm.default, _aten.addmm.default))
"""What linear layers call; products of batches are attention's, if it is not fused."""

Contexts = Callable[[], tuple[Any, Any]]
"""What ``torch.utils.checkpoint.checkpoint`` takes as ``context_fn``."""


def contexts_for(save: str, kept: Callable[[], None]) -> Contexts:
    """Return the contexts that keep the results of fused attention, and of linear layers.

    Args:
        save: ``attention`` for no linear layers, ``every-second-matmul`` or ``matmuls``.
        kept: is called for every result that is kept.
    """
    every = {"attention": 0, "every-second-matmul": 2, "matmuls": 1}[save]
    return lambda: create_selective_checkpoint_contexts(partial(_policy, every, count(1), kept))  # type: ignore[no-untyped-call]


def _policy(
    every: int, numbers: Iterator[int], kept: Callable[[], None], context: SelectiveCheckpointContext, func: Any, *_: Any, **__: Any
) -> CheckpointPolicy:
    """Say what becomes of one result; asked in forward only, torch itself remembers the answers for backward."""
    if func in _ATTENTION or (every > 0 and func in _MATMULS and next(numbers) % every == 0):
        kept()
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE

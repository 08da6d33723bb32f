"""A parameter count and the number of ranks -> bytes of model states a rank holds under ZeRO."""

from __future__ import annotations

from enum import IntEnum

from profiler.errors import SpecError

PARAMETER_BYTES = 2
"""A parameter in 16 bits."""
GRADIENT_BYTES = 2
"""Its gradient in 16 bits."""
ADAM_BYTES = 12
"""What mixed-precision Adam keeps for it in float32: a master copy and two moments; the paper's K."""


class ZeroStage(IntEnum):
    """What is cut into one part a rank; each stage cuts what the one before does, and more."""

    NONE = 0
    OPTIMIZER_STATE = 1
    GRADIENTS = 2
    PARAMETERS = 3


def zero_states_bytes(num_parameters: int, *, stage: int, num_ranks: int, optimizer_bytes: int = ADAM_BYTES) -> int:
    """Return the bytes of parameters, gradients and optimizer state that one rank holds.

    Per parameter ``2 + 2 + K`` bytes; stage 1 divides ``K`` by the number of ranks, stage 2 the gradients' 2 too, stage 3 everything.
    Source: Rajbhandari et al. 2019, https://arxiv.org/abs/1910.02054, section 5 and figure 1. Valid for mixed-precision training with
    16-bit parameters and gradients; activations, buckets of collectives and the padding of uneven parts come on top.

    Args:
        num_parameters: of the whole model.
        stage: 0 to 3, as `ZeroStage`.
        num_ranks: that share the states.
        optimizer_bytes: kept for each parameter; the paper's ``K``.

    Raises:
        SpecError: there is no such stage, or no rank.
    """
    if stage not in list(ZeroStage):
        raise SpecError(f"ZeRO stage {stage} does not exist. Use 0, 1, 2 or 3.")
    if num_ranks < 1:
        raise SpecError(f"num_ranks={num_ranks} is not possible. Use a whole number from 1.")
    shares = ((PARAMETER_BYTES, ZeroStage.PARAMETERS), (GRADIENT_BYTES, ZeroStage.GRADIENTS), (optimizer_bytes, ZeroStage.OPTIMIZER_STATE))
    return sum(-(-num_parameters * size // (num_ranks if stage >= cut_from else 1)) for size, cut_from in shares)

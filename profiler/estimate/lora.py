"""Shapes of linear layers and a rank -> parameters of LoRA's adapters and the bytes that training them holds."""

from __future__ import annotations

from collections.abc import Iterable

from profiler.estimate.blocks import block_of
from profiler.models.config import ConfigFacts

ATTENTION_TARGETS = ("q_proj", "v_proj")
"""What the paper adapts."""
ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


def lora_num_parameters(linears: Iterable[tuple[int, int]], rank: int) -> int:
    """Return the parameters of two matrices for each linear layer: ``rank * (inputs + outputs)``.

    Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1; for square layers of width ``d`` the paper's ``2 * L * d * r``.
    Valid for LoRA itself: DoRA adds one number an output.
    """
    return sum(rank * (inputs + outputs) for inputs, outputs in linears)


def adapter_num_parameters(facts: ConfigFacts, rank: int, targets: Iterable[str] = ATTENTION_TARGETS) -> int:
    """Return the parameters of adapters on the named linear layers of every block.

    Raises:
        SpecError: as `profiler.estimate.blocks.block_of`.
    """
    linears = block_of(facts).linears
    return facts.num_layers * lora_num_parameters((linears[target] for target in targets), rank)


def lora_states_bytes(num_adapter_parameters: int, itemsize: int = 4, optimizer_copies: int = 2) -> int:
    """Return the bytes of adapters, their gradients and their optimizer state: ``(2 + copies) * itemsize`` a parameter.

    16 bytes with float32 adapters and Adam, which peft makes also for a 16-bit model (``autocast_adapter_dtype``). The frozen weights have
    neither gradients nor state. Activations are hardly fewer: the adapters need the inputs of their layers.
    """
    return num_adapter_parameters * itemsize * (2 + optimizer_copies)

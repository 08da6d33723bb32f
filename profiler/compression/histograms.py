"""The weights of a model's matrices -> counts between edges, so that a model before and after can be drawn over each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from profiler.compression.held import tensors_of

NUM_BINS = 80
_WIDTH = 4.0
"""Standard deviations on each side of zero; what lies beyond counts in the last bin."""


def weight_histogram(model: nn.Module, edges: list[float] | None = None) -> tuple[list[float], list[int]]:
    """Return edges and counts of the numbers of all matrices and of what they became.

    Args:
        model: any; numbers in integer formats are left out, since their scale is elsewhere.
        edges: as found before; None: evenly, by the spread of the numbers.
    """
    numbers = [tensor.detach().float().flatten() for _, tensor in tensors_of(model) if _counted(tensor)]
    together = torch.cat(numbers) if numbers else torch.zeros(0)
    if edges is None:
        reach = _WIDTH * float(together.square().mean().sqrt()) if len(together) else 1.0
        edges = torch.linspace(-reach, reach, NUM_BINS + 1).tolist()
    inside = together.clamp(edges[0], edges[-1])
    counts = torch.histogram(inside, torch.tensor(edges)).hist
    return edges, [int(count) for count in counts]


def _counted(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim == 2 and not tensor.is_quantized

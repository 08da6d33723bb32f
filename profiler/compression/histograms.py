"""The weights that a model multiplies with -> counts between edges, so that a model before and after can be drawn over each other."""

from __future__ import annotations

import torch
from torch import nn

from profiler.compression.effective import effective_weights

NUM_BINS = 80
_WIDTH = 4.0
"""Standard deviations on each side of zero; what lies beyond counts in the last bin."""


def weight_histogram(model: nn.Module, edges: list[float] | None = None) -> tuple[list[float], list[int]]:
    """Return edges and counts of the weights of all linear and recurrent layers, or of what they became: each weight is one count.

    Args:
        model: any; quantized and sparse weights are counted as the products see them.
        edges: as found before; None: evenly, by the spread of the numbers.
    """
    numbers = [weight.detach().float().flatten() for weight in effective_weights(model)]
    together = torch.cat(numbers) if numbers else torch.zeros(0)
    if edges is None:
        reach = _WIDTH * float(together.square().mean().sqrt()) if len(together) else 1.0
        edges = torch.linspace(-reach, reach, NUM_BINS + 1).tolist()
    inside = together.clamp(edges[0], edges[-1])
    counts = torch.histogram(inside, torch.tensor(edges)).hist
    return edges, [int(count) for count in counts]

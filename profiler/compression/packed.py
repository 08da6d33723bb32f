"""Weights of 8, 4, 2 or 1 bits, really packed: groups of a row share a scale and a lowest value, and each product expands them first.

The range of a group is searched for the least squared error, since the extremes of a group are not worth a level of four.
"""

from __future__ import annotations

import torch
from torch import Tensor

from profiler.compression.sparse_storage import ExpandedLinear

_SHRINKS = torch.linspace(1.0, 0.3, 15).tolist()


class PackedLinear(ExpandedLinear):
    """A linear layer on packed codes.

    Args:
        weight: dense, rows by columns; its size is a multiple of the group.
        bias: of the rows, or None.
        bits: 1, 2, 4 or 8.
        group: weights that share a scale.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, bits: int, group: int) -> None:
        super().__init__(weight, bias)
        codes, scales, lowest = quantize_groups(weight, bits, group)
        self.bits = bits
        self.codes: Tensor
        self.scales: Tensor
        self.lowest: Tensor
        self.register_buffer("codes", pack_codes(codes.flatten(), bits))
        self.register_buffer("scales", scales)
        self.register_buffer("lowest", lowest)

    def expanded(self) -> Tensor:
        """Return the dense weight."""
        codes = unpack_codes(self.codes, self.bits).view(len(self.scales), -1)
        return torch.addcmul(self.lowest, codes.to(self.scales.dtype), self.scales).view(self.shape)


def quantize_groups(weight: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes, uint8 [groups, group], scales and lowest values, float [groups, 1]: a number is lowest + code x scale."""
    groups = weight.detach().reshape(-1, group)
    levels = 2**bits - 1
    center = groups.mean(1, keepdim=True)
    low, high = (end(groups, dim=1, keepdim=True).values - center for end in (torch.min, torch.max))
    best: tuple[Tensor, ...] | None = None
    for shrink in _SHRINKS:
        scales = ((high - low) * shrink / levels).clamp(min=torch.finfo(groups.dtype).tiny)
        lowest = center + low * shrink
        codes = ((groups - lowest) / scales).round().clamp(0, levels)
        errors = (lowest + codes * scales - groups).square().sum(1, keepdim=True)
        found = (errors, codes, scales, lowest)
        best = found if best is None else tuple(torch.where(errors < best[0], new, old) for new, old in zip(found, best, strict=True))
    assert best is not None
    _, codes, scales, lowest = best
    return codes.to(torch.uint8), scales, lowest


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Return flat uint8 codes below 2^bits, 8 / bits of them a byte, the first in the highest bits."""
    places = _places(bits)
    return (codes.view(-1, len(places)) << places).sum(1, dtype=torch.uint8)


def unpack_codes(packed: Tensor, bits: int) -> Tensor:
    """Return what `pack_codes` packed, flat."""
    codes: Tensor = (packed[:, None] >> _places(bits)) & (2**bits - 1)
    return codes.flatten()


def _places(bits: int) -> Tensor:
    return torch.arange(8 - bits, -1, -bits, dtype=torch.uint8)

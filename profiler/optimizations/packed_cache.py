"""A KV cache of packed integers: transformers' quantized layers, with codes of 2, 4 or 8 bits in groups.

When keys and values are quantized is the library's rule (cache_utils.QuantizedLayer): the prompt at once, then new tokens once
``residual_length`` of them have gathered; until then they stay as they are. Each forward unpacks what it reads, layer by layer. A group
of consecutive numbers shares a scale and a least value, after Liu et al. 2024 (KIVI, https://arxiv.org/abs/2402.02750).

Needs torch and transformers; for workers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import Cache, QuantizedCache, QuantizedLayer


class Packed(NamedTuple):
    """A tensor in fewer bits."""

    codes: Tensor
    """uint8 (groups, bytes of a group)."""
    scales: Tensor
    """(groups, 1), in the dtype of the tensor, as the least values."""
    least: Tensor


def pack(values: Tensor, bits: int, group: int) -> Packed:
    """Return a tensor of any shape packed; ``group`` is a multiple of the codes in a byte."""
    flat = values.reshape(-1)
    flat = functional.pad(flat, (0, -flat.numel() % group)) if flat.numel() % group else flat
    rows = flat.view(-1, group)
    least, most = rows.aminmax(dim=1, keepdim=True)
    scales = (most - least).div_(2**bits - 1).clamp_min_(torch.finfo(values.dtype).tiny)
    codes = (rows - least).div_(scales).round_().to(torch.uint8)
    packed = codes[:, :: 8 // bits]
    for place in range(1, 8 // bits):
        packed = packed | codes[:, place :: 8 // bits] << bits * place
    return Packed(packed, scales, least)


def unpack(packed: Packed, bits: int, shape: torch.Size) -> Tensor:
    """Return the tensor of this shape again, nearly."""
    codes = packed.codes
    if bits < 8:
        codes = torch.stack([codes >> place & 2**bits - 1 for place in range(0, 8, bits)], dim=-1).flatten(1)
    values = codes.to(packed.scales.dtype).mul_(packed.scales).add_(packed.least).view(-1)
    return values[: shape.numel()].view(shape)


class PackedLayer(QuantizedLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values."""

    def _quantize(self, tensor: Tensor, axis: int = 0) -> tuple[Packed, torch.Size]:
        return pack(tensor, self.nbits, self.q_group_size), tensor.shape

    def _dequantize(self, q_tensor: tuple[Packed, torch.Size]) -> Tensor:
        packed, shape = q_tensor
        return unpack(packed, self.nbits, shape)


def packed_cache(model: nn.Module, bits: int, group: int, residual: int) -> Cache:
    """Return an empty cache for a model whose layers all attend to every token."""
    config: Any = model.config
    num_layers = config.get_text_config(decoder=True).num_hidden_layers
    return Cache(layers=[PackedLayer(nbits=bits, q_group_size=group, residual_length=residual) for _ in range(num_layers)])


def float8_cache(model: nn.Module) -> Cache:
    """Return transformers' own cache of 8-bit floating point, whose scale is the first forward's."""
    config: Any = model.config
    return QuantizedCache("fp8", config)

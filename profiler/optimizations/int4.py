"""Linear layers with 4-bit weights in groups, two to a byte, multiplied by torch's own kernels without ever being unpacked.

A group of weights of one output shares a scale and a zero point in the dtype of the product. Codes and scales come from torchao's
primitives, in the order of its tile-packed layout; what multiplies them is ``aten::_weight_int4pack_mm`` on a GPU, which takes bfloat16
only, and ``aten::_weight_int4pack_mm_for_cpu`` on a CPU. Both pad: the kernels want whole tiles.

Needs torch and torchao; for workers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchao.quantization.quant_primitives import (
    MappingType,
    _choose_qparams_affine_tinygemm,
    _quantize_affine_tinygemm,
)
from torchao.quantization.utils import pack_tinygemm_scales_and_zeros

_MAX_CODE = 15
_GPU_INPUTS, _GPU_OUTPUTS, _GPU_INNER_TILES = 1024, 8, 8
_CPU_OUTPUTS, _CPU_INNER_TILES = 16, 2
"""Multiples that the kernels want; a CPU's ignores its tiles (ATen/native/LinearAlgebra.cpp)."""


class Int4Linear(nn.Module):
    """A linear layer whose weight is held in 4 bits; for inference.

    Args:
        linear: is replaced by this; its bias is taken over.
        group: weights that share a scale.
        for_cpu: pack for the CPU's kernel instead of a GPU's.
    """

    def __init__(self, linear: nn.Linear, group: int, *, for_cpu: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.group, self.for_cpu = linear.in_features, linear.out_features, group, for_cpu
        inputs, outputs = (group, _CPU_OUTPUTS) if for_cpu else (_GPU_INPUTS, _GPU_OUTPUTS)
        self.num_padded = -linear.in_features % inputs
        weight = linear.weight.detach() if for_cpu else linear.weight.detach().to(torch.bfloat16)
        codes, scales_and_zeros = _quantized(_padded(weight, self.num_padded, -linear.out_features % outputs), group)
        self.packed = nn.Parameter(_pack_for_cpu(codes) if for_cpu else _pack_for_gpu(codes), requires_grad=False)
        self.scales_and_zeros = nn.Parameter(scales_and_zeros, requires_grad=False)
        self.bias = linear.bias

    def forward(self, input: Tensor) -> Tensor:
        """Multiply (..., in_features) in the dtype of the scales and return the input's dtype, (..., out_features)."""
        rows = input.reshape(-1, self.in_features).to(self.scales_and_zeros.dtype)
        rows = functional.pad(rows, (0, self.num_padded)) if self.num_padded else rows
        product = torch.ops.aten._weight_int4pack_mm_for_cpu if self.for_cpu else torch.ops.aten._weight_int4pack_mm
        out: Tensor = product(rows, self.packed, self.group, self.scales_and_zeros)[:, : self.out_features]
        out = out.reshape(*input.shape[:-1], self.out_features)
        if self.bias is not None:
            out = out + self.bias
        return out.to(input.dtype)


def _padded(weight: Tensor, num_inputs: int, num_outputs: int) -> Tensor:
    return functional.pad(weight, (0, num_inputs, 0, num_outputs)) if num_inputs or num_outputs else weight


def _quantized(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Return the codes, int32 (outputs, inputs), and the scales and zero points (inputs / group, outputs, 2) of a weight."""
    block = (1, group)
    scale, zero = _choose_qparams_affine_tinygemm(
        weight,
        MappingType.ASYMMETRIC,
        block,
        torch.int32,
        quant_min=0,
        quant_max=_MAX_CODE,
        scale_dtype=weight.dtype,
        zero_point_dtype=weight.dtype,
    )
    codes = _quantize_affine_tinygemm(weight, list(block), scale, zero, torch.int32, quant_min=0, quant_max=_MAX_CODE)
    num_outputs = weight.shape[0]
    packed: Tensor = pack_tinygemm_scales_and_zeros(scale.reshape(num_outputs, -1), zero.reshape(num_outputs, -1), weight.dtype)
    return codes, packed


def _pack_for_cpu(codes: Tensor) -> Tensor:
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, _CPU_INNER_TILES)
    return packed


def _pack_for_gpu(codes: Tensor) -> Tensor:
    pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8)
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack(pairs, _GPU_INNER_TILES)
    return packed

"""Weight formats -> bytes of quantized weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

_QLORA = "Dettmers et al. 2023, https://arxiv.org/abs/2305.14314, section 3"
_GGUF = "Block sizes of https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h"
_TORCHAO = "https://github.com/pytorch/ao/tree/main/torchao/quantization"
_MARLIN = "https://github.com/IST-DASLab/Sparse-Marlin"


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """How a weight is stored."""

    bits_per_weight: float
    """With the scales and zero points of its block."""
    source: str
    row_bytes: int = 0
    """On top for each output of a layer: the scale of formats that have one a row, and a zero point."""
    multiple_of: int = 1
    """Inputs of a layer are padded up to a multiple of this."""


def grouped_bits(bits: float, group: int, overhead_bits: int) -> float:
    """Return bits a weight with ``overhead_bits`` of scale and zero point for each group."""
    return bits + overhead_bits / group


_DOUBLE_QUANTIZED = 4 + 8 / 64 + 32 / (64 * 256)
_GGML_BITS = {"Q4_0": 4.5, "Q4_1": 5.0, "Q5_0": 5.5, "Q5_1": 6.0, "Q8_0": 8.5}
_GGML_K_BITS = {"Q2_K": 2.625, "Q3_K": 3.4375, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625}

FORMATS: Mapping[str, WeightFormat] = {
    "float32": WeightFormat(bits_per_weight=32, source="IEEE 754"),
    "bfloat16": WeightFormat(bits_per_weight=16, source="IEEE 754's float32 cut to 16 bits"),
    "float16": WeightFormat(bits_per_weight=16, source="IEEE 754"),
    "float8": WeightFormat(bits_per_weight=8, row_bytes=4, source=_TORCHAO),
    "int8": WeightFormat(bits_per_weight=8, row_bytes=5, source=_TORCHAO),
    "fp6": WeightFormat(bits_per_weight=6, row_bytes=2, source="Xia et al. 2024, https://arxiv.org/abs/2401.14112"),
    "int4, groups of 64": WeightFormat(bits_per_weight=grouped_bits(4, 64, 32), multiple_of=1024, source=_TORCHAO),
    "int4, groups of 128": WeightFormat(bits_per_weight=grouped_bits(4, 128, 32), multiple_of=1024, source=_TORCHAO),
    "int4, groups of 64, 2:4 sparse": WeightFormat(bits_per_weight=grouped_bits(3, 64, 16), source=_MARLIN),
    "nf4": WeightFormat(bits_per_weight=grouped_bits(4, 64, 32), source=_QLORA),
    "nf4, double quantized": WeightFormat(bits_per_weight=_DOUBLE_QUANTIZED, source=_QLORA),
    **{name: WeightFormat(bits_per_weight=bits, source=_GGUF) for name, bits in (_GGML_BITS | _GGML_K_BITS).items()},
}
"""Formats by name. The last ten are GGUF's types of one tensor; files named Q4_K_M and the like mix several of them."""


def quantized_bytes(num_weights: int, weight_format: str) -> int:
    """Return the bytes of so many weights, without what is added a row: ``bits_per_weight / 8`` each.

    NF4 has a float32 scale a block of 64 (0.5625 bytes); double quantization stores those scales in 8 bits, with a float32 scale for 256 of
    them (0.5159 bytes). Valid for what is quantized: embeddings and norms, often the output layer too, keep their format.
    """
    return ceil(num_weights * FORMATS[weight_format].bits_per_weight / 8)


def quantized_linear_bytes(inputs: int, outputs: int, weight_format: str) -> int:
    """Return the bytes of one linear layer, with its padding and what is added for each output."""
    chosen = FORMATS[weight_format]
    padded = -(-inputs // chosen.multiple_of) * chosen.multiple_of
    return quantized_bytes(padded * outputs, weight_format) + chosen.row_bytes * outputs

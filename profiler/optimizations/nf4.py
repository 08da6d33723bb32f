"""Linear layers with 4-bit NormalFloat weights, stored and multiplied as bitsandbytes 0.50 does on a GPU.

The values are real ones (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314): two codes a byte, and the largest magnitude of each block
of 64 weights as a float32, or, doubly quantized, as 8 bits with a float32 for 256 of them. What is allocated in which order was read in
bitsandbytes: functional.quantize_4bit, autograd.MatMul4Bit and backends/cuda/ops.py. A product of more than a few tokens first unpacks the
weight into the compute dtype, in forward and again in backward; nothing of it is kept between the two.

The operators stand for kernels, which need no memory but their results: what they compute with lies in numpy's arrays on the host, outside
of torch's allocators, so that measured and simulated bytes are the same. On a real GPU that takes long; bytes are right, times are not.

Needs torch; for workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

BLOCK = 64
"""Weights that share a scale."""
NESTED_BLOCK = 256
"""Scales that share a scale, where they are quantized too."""
FUSED_TOKENS = 4
"""Up to so many tokens one kernel multiplies with the packed weight; on some cards for more, at most 512 (_gemm_4bit_use_custom_cuda)."""
_LEVELS = (
    *(-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0),
    *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0),
)
"""Quantiles of the normal distribution, one of them zero (appendix E of the paper)."""
_BLOCKS_AT_ONCE = 1 << 12
"""Blocks that are encoded or decoded together, to keep what the host computes with small."""

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]


@torch.library.custom_op("headroom_nf4::quantize_nf4", mutates_args=())
def quantize_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scales, float32 (blocks,), and the packed codes, uint8 (bytes, 1), of a weight of any shape, in one piece."""
    scales, packed = _storage(weight)
    flat, codes = weight.view(-1), packed.view(-1)
    levels = np.array(_LEVELS, np.float32)
    bounds = (levels[1:] + levels[:-1]) / 2
    for first in range(0, scales.numel(), _BLOCKS_AT_ONCE):
        part = _fetched(flat[first * BLOCK : (first + _BLOCKS_AT_ONCE) * BLOCK], np.float32)
        blocks = np.pad(part, (0, -part.size % BLOCK)).reshape(-1, BLOCK)
        largest = np.abs(blocks).max(1)
        _fill(scales[first : first + len(blocks)], largest)
        nibbles = np.searchsorted(bounds, blocks / np.maximum(largest, 1e-38)[:, None]).astype(np.uint8).reshape(-1, 2)
        both = nibbles[:, 0] * 16 + nibbles[:, 1]
        start = first * BLOCK // 2
        _fill(codes[start : start + both.size], both[: (part.size + 1) // 2])
    return scales, packed


@torch.library.custom_op("headroom_nf4::dequantize_nf4", mutates_args=())
def dequantize_nf4(packed: Tensor, scales: Tensor, shape: list[int], dtype: torch.dtype) -> Tensor:
    """Return the weight of this shape and dtype."""
    out = packed.new_empty(shape, dtype=dtype)
    flat = out.view(-1)
    for start, values in _decoded(packed, scales, out.numel()):
        _fill(flat[start : start + values.size], values)
    return out


@torch.library.custom_op("headroom_nf4::nf4_product", mutates_args=())
def nf4_product(input: Tensor, packed: Tensor, scales: Tensor, shape: list[int], bias: Tensor | None) -> Tensor:
    """Return ``input @ weight.T + bias`` in one kernel, for few tokens."""
    out: Tensor = _product(input, packed, scales, shape, bias)
    weight = np.concatenate([values for _, values in _decoded(packed, scales, shape[0] * shape[1])]).reshape(shape)
    result = _fetched(input, np.float32) @ weight.T
    _fill(out, result if bias is None else result + _fetched(bias, np.float32))
    return out


def _decoded(packed: Tensor, scales: Tensor, num_weights: int) -> Iterator[tuple[int, Floats]]:
    """Yield where a stretch of the flat weight begins, and its values."""
    levels = np.array(_LEVELS, np.float32)
    weights_at_once = _BLOCKS_AT_ONCE * BLOCK
    for start in range(0, num_weights, weights_at_once):
        end = min(start + weights_at_once, num_weights)
        codes = _fetched(packed.view(-1)[start // 2 : (end + 1) // 2], np.uint8)
        values = levels[np.stack((codes >> 4, codes & 15), -1).reshape(-1)[: end - start]]
        largest = _fetched(scales[start // BLOCK : -(-end // BLOCK)], np.float32)
        yield start, values * largest.repeat(BLOCK)[: end - start]


def _fetched(tensor: Tensor, kind: type[Any]) -> NDArray[Any]:
    """Return a tensor's values in memory that torch's allocators know nothing of."""
    found: NDArray[Any] = np.empty(tensor.shape, kind)
    torch.from_numpy(found).copy_(tensor if tensor.device.type == "cpu" else tensor.cpu())
    return found


def _fill(tensor: Tensor, values: NDArray[Any]) -> None:
    """Give a tensor these values, rounded to its dtype, without memory of its device."""
    source = torch.from_numpy(values)
    tensor.copy_(source if tensor.device.type == "cpu" else source.to(tensor.dtype))


@quantize_nf4.register_fake
def _storage(weight: Tensor) -> tuple[Tensor, Tensor]:
    num_elements = weight.numel()
    scales = weight.new_empty(-(-num_elements // BLOCK), dtype=torch.float32)
    return scales, weight.new_empty((num_elements + 1) // 2, 1, dtype=torch.uint8)


@dequantize_nf4.register_fake
def _unpacked(packed: Tensor, scales: Tensor, shape: list[int], dtype: torch.dtype) -> Tensor:
    return packed.new_empty(shape, dtype=dtype)


@nf4_product.register_fake
def _product(input: Tensor, packed: Tensor, scales: Tensor, shape: list[int], bias: Tensor | None) -> Tensor:
    return input.new_empty(*input.shape[:-1], shape[0])


class Nf4Linear(nn.Linear):
    """A linear layer whose weight is quantized; only its input's gradient can be computed.

    Args:
        linear: is replaced by this; its bias is taken over. GPT-2's kind, with inputs first, is turned around.
        device: where the quantized weight shall be; the whole one is copied there first.
        compute_dtype: of the product.
        double_quant: quantize the scales too.
    """

    absmax: Tensor
    nested_absmax: Tensor
    nested_code: Tensor
    offset: Tensor

    def __init__(self, linear: nn.Linear | Conv1D, device: torch.device, compute_dtype: torch.dtype, *, double_quant: bool = False) -> None:
        nn.Module.__init__(self)
        weight = linear.weight.detach().T.contiguous() if isinstance(linear, Conv1D) else linear.weight.detach()
        self.out_features, self.in_features = weight.shape
        self.compute_dtype = compute_dtype
        self.shape = list(weight.shape)
        whole = weight.to(device)  # stays until all that is made of it is there
        scales, packed = quantize_nf4(whole)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = linear.bias
        self.code = nn.Buffer(_table(device), persistent=False)
        if double_quant:
            self._quantize_scales(scales)
        else:
            self.absmax = nn.Buffer(scales)

    @property
    def is_double_quantized(self) -> bool:
        """Whether the scales are quantized too."""
        return "offset" in self._buffers

    def forward(self, input: Tensor) -> Tensor:
        """Multiply in the compute dtype and return the input's dtype."""
        given, input = input.dtype, input.to(self.compute_dtype)
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        out: Tensor = _Product.apply(input, self, bias)  # type: ignore[no-untyped-call]
        return out.to(given)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Return the weight (out_features, in_features)."""
        weight: Tensor = dequantize_nf4(self.weight, self.scales(), self.shape, dtype)
        return weight

    def scales(self) -> Tensor:
        """Return the float32 scale of each block; of doubly quantized ones, new memory."""
        if not self.is_double_quantized:
            return self.absmax
        scales: Tensor = dequantize_scales(self.absmax, self.nested_absmax, self.nested_code)
        return scales.add_(self.offset)

    def _quantize_scales(self, scales: Tensor) -> None:
        self.offset = nn.Buffer(scales.mean())
        nested, codes = quantize_scales(scales - self.offset, _dynamic_map(scales.device))
        self.absmax, self.nested_absmax = nn.Buffer(codes), nn.Buffer(nested)
        self.nested_code = nn.Buffer(_dynamic_map(scales.device).clone(), persistent=False)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, input: Tensor, layer: Nf4Linear, bias: Tensor | None) -> Tensor:
        context.layer = layer
        context.needs_bias = bias is not None and bias.requires_grad
        if input.numel() <= FUSED_TOKENS * input.shape[-1]:
            out: Tensor = nf4_product(input, layer.weight, layer.scales(), layer.shape, bias)
            return out
        return functional.linear(input, layer.dequantized(input.dtype), bias)

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        grad_bias = grad.flatten(0, -2).sum(0) if context.needs_bias else None
        grad_input = grad @ context.layer.dequantized(grad.dtype) if context.needs_input_grad[0] else None
        return grad_input, None, grad_bias


@torch.library.custom_op("headroom_nf4::quantize_scales", mutates_args=())
def quantize_scales(scales: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest magnitude of each 256 scales, float32, and the 8-bit codes of the scales, uint8, by a sorted table."""
    nested, codes = _nested_storage(scales, code)
    values, table = _fetched(scales, np.float32), _fetched(code, np.float32)
    rows = np.pad(values, (0, -values.size % NESTED_BLOCK)).reshape(-1, NESTED_BLOCK)
    largest = np.abs(rows).max(1)
    positions = np.searchsorted((table[1:] + table[:-1]) / 2, rows / np.maximum(largest, 1e-38)[:, None])
    _fill(nested, largest)
    _fill(codes, positions.astype(np.uint8).reshape(-1)[: values.size])
    return nested, codes


@quantize_scales.register_fake
def _nested_storage(scales: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    return scales.new_empty(-(-scales.numel() // NESTED_BLOCK)), scales.new_empty(scales.numel(), dtype=torch.uint8)


@torch.library.custom_op("headroom_nf4::dequantize_scales", mutates_args=())
def dequantize_scales(codes: Tensor, nested: Tensor, code: Tensor) -> Tensor:
    """Return what `quantize_scales` was given, nearly."""
    out: Tensor = _scales_of(codes, nested, code)
    table, positions = _fetched(code, np.float32), _fetched(codes, np.uint8)
    _fill(out, table[positions] * _fetched(nested, np.float32).repeat(NESTED_BLOCK)[: positions.size])
    return out


@dequantize_scales.register_fake
def _scales_of(codes: Tensor, nested: Tensor, code: Tensor) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


def _table(device: torch.device) -> Tensor:
    """Return the 16 levels, normalized on the device: every layer has its own."""
    table = torch.tensor(_LEVELS, device=device)
    return table.div_(table.abs().max())


def _dynamic_map(device: torch.device) -> Tensor:
    """Return the 256 sorted values of the dynamic 8-bit type on a device."""
    return torch.tensor(_dynamic_values(), device=device)


@cache
def _dynamic_values() -> tuple[float, ...]:
    """Return seven decades of values, finer the larger (Dettmers 2016, https://arxiv.org/abs/1511.04561)."""
    values = [0.0, 1.0]
    for decade in range(7):
        bounds = np.linspace(0.1, 1, 2**decade + 1, dtype=np.float32).tolist()
        means = [(low + high) / 2 * 10 ** (decade - 6) for low, high in pairwise(bounds)]
        values += [*means, *(-mean for mean in means)]
    return tuple(sorted(values))

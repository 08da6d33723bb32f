"""Linear layers with 4-bit NormalFloat weights, stored and multiplied as bitsandbytes 0.50 does on a GPU.

The values are real ones (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314): two codes a byte, and the largest magnitude of each block
of 64 weights as a float32, or, doubly quantized, as 8 bits with a float32 for 256 of them. What is allocated in which order was read in
bitsandbytes: functional.quantize_4bit, autograd.MatMul4Bit and backends/cuda/ops.py. A product of more than a few tokens first unpacks the
weight into the compute dtype, in forward and again in backward; nothing of it is kept between the two.

Needs torch; for workers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

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
_ROWS_AT_ONCE = 1 << 12
"""Blocks that are encoded or decoded together, to keep the CPU's temporaries small."""


@torch.library.custom_op("headroom::quantize_nf4", mutates_args=())
def quantize_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scales, float32 (blocks,), and the packed codes, uint8 (bytes, 1), of a weight of any shape."""
    scales, packed = _storage(weight)
    flat = functional.pad(weight.flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
    half = BLOCK // 2
    bounds = _levels(weight.device)
    bounds = (bounds[1:] + bounds[:-1]) / 2
    codes = torch.empty(flat.shape[0], half, dtype=torch.uint8, device=weight.device)
    for start in range(0, flat.shape[0], _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        values = flat[rows].float()
        scales[rows] = values.abs().amax(1)
        nibbles = torch.bucketize(values / scales[rows, None].clamp_min(1e-38), bounds).to(torch.uint8)
        codes[rows] = nibbles[:, ::2] * 16 + nibbles[:, 1::2]
    packed.copy_(codes.flatten()[: packed.numel(), None])
    return scales, packed


@torch.library.custom_op("headroom::dequantize_nf4", mutates_args=())
def dequantize_nf4(packed: Tensor, scales: Tensor, shape: list[int], dtype: torch.dtype) -> Tensor:
    """Return the weight of this shape and dtype."""
    out = packed.new_empty(shape, dtype=dtype)
    flat, levels = out.view(-1), _levels(packed.device)
    bytes_at_once = _ROWS_AT_ONCE * BLOCK // 2
    for first in range(0, packed.numel(), bytes_at_once):
        part = packed.view(-1)[first : first + bytes_at_once]
        values = levels[torch.stack((part >> 4, part & 15), -1).flatten().int()]
        start = first * 2
        blocks = torch.arange(start, start + values.numel(), device=packed.device) // BLOCK
        end = min(start + values.numel(), flat.numel())
        flat[start:end] = (values * scales[blocks])[: end - start].to(dtype)
    return out


@torch.library.custom_op("headroom::nf4_product", mutates_args=())
def nf4_product(input: Tensor, packed: Tensor, scales: Tensor, shape: list[int], bias: Tensor | None) -> Tensor:
    """Return ``input @ weight.T + bias`` in one kernel, for few tokens."""
    return functional.linear(input, dequantize_nf4(packed, scales, shape, input.dtype), bias)


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


@cache
def _levels(device: torch.device) -> Tensor:
    return torch.tensor(_LEVELS, device=device)


class Nf4Linear(nn.Linear):
    """A linear layer whose weight is quantized; only its input's gradient can be computed.

    Args:
        linear: is replaced by this; its bias is taken over.
        device: where the quantized weight shall be; the whole one is copied there first.
        compute_dtype: of the product.
        double_quant: quantize the scales too.
    """

    absmax: Tensor
    nested_absmax: Tensor
    nested_code: Tensor
    offset: Tensor

    def __init__(self, linear: nn.Linear, device: torch.device, compute_dtype: torch.dtype, *, double_quant: bool = False) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.compute_dtype = compute_dtype
        self.shape = list(linear.weight.shape)
        scales, packed = quantize_nf4(linear.weight.detach().to(device))
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


@torch.library.custom_op("headroom::quantize_scales", mutates_args=())
def quantize_scales(scales: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest magnitude of each 256 scales, float32, and the 8-bit codes of the scales, uint8, by a sorted table."""
    nested, codes = _nested_storage(scales, code)
    rows = functional.pad(scales, (0, -scales.numel() % NESTED_BLOCK)).view(-1, NESTED_BLOCK)
    nested.copy_(rows.abs().amax(1))
    positions = torch.bucketize(rows / nested[:, None].clamp_min(1e-38), (code[1:] + code[:-1]) / 2)
    codes.copy_(positions.flatten()[: codes.numel()])
    return nested, codes


@quantize_scales.register_fake
def _nested_storage(scales: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    return scales.new_empty(-(-scales.numel() // NESTED_BLOCK)), scales.new_empty(scales.numel(), dtype=torch.uint8)


@torch.library.custom_op("headroom::dequantize_scales", mutates_args=())
def dequantize_scales(codes: Tensor, nested: Tensor, code: Tensor) -> Tensor:
    """Return what `quantize_scales` was given, nearly."""
    return code[codes.int()] * nested.repeat_interleave(NESTED_BLOCK)[: codes.numel()]


@dequantize_scales.register_fake
def _scales_of(codes: Tensor, nested: Tensor, code: Tensor) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


def _table(device: torch.device) -> Tensor:
    """Return the 16 levels, normalized on the device: every layer has its own."""
    table = torch.tensor(_LEVELS, device=device)
    return table.div_(table.abs().max())


def _dynamic_map(device: torch.device) -> Tensor:
    """Return the 256 sorted values of the dynamic 8-bit type: seven decades, finer the larger (Dettmers 2016, https://arxiv.org/abs/1511.04561)."""
    values = [0.0, 1.0]
    for decade in range(7):
        bounds = torch.linspace(0.1, 1, 2**decade + 1, device="cpu").tolist()
        means = [(low + high) / 2 * 10 ** (decade - 6) for low, high in pairwise(bounds)]
        values += [*means, *(-mean for mean in means)]
    return torch.tensor(sorted(values), device=device)


def quantize_linears(
    model: nn.Module,
    device: torch.device,
    compute_dtype: torch.dtype,
    *,
    double_quant: bool = False,
    is_quantized: Callable[[str], bool] = lambda name: name.rpartition(".")[2] != "lm_head",
) -> int:
    """Replace the linear layers of a model, in place, one after another.

    Args:
        model: what to change.
        device: where the quantized weights shall be.
        compute_dtype: of the products.
        double_quant: quantize the scales too.
        is_quantized: chooses layers by their names; by default all but the output layer.

    Returns:
        How many were replaced.
    """
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear and is_quantized(name)]
    for name in names:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        model.set_submodule(name, Nf4Linear(linear, device, compute_dtype, double_quant=double_quant))
    return len(names)


def prepare_for_training(model: nn.Module) -> None:
    """Freeze a quantized model and turn what is left in 16 bits into float32, as peft.prepare_model_for_kbit_training does."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.to(torch.float32)

"""``F.scaled_dot_product_attention`` on the GPU: the operators that torch runs there, for the kernel that CUDA would choose.

The steps around the kernels are those of ATen/native/transformers/attention.cpp in torch 2.13: a boolean mask becomes one of the compute
dtype in every call, which the efficient kernel keeps for backward; masks and head sizes are padded to what a kernel can read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend

from profiler.devices import Gpu
from profiler.errors import SimulationUnsupported
from profiler.simulate.cuda.attention import AttentionCall, choose_kernel
from profiler.simulate.cuda.functions import FUNCTIONS

_aten = torch.ops.aten
_MASK_ALIGNMENT = 8
_FLASH_ALIGNMENT = 8
_LOWEST_FOR_CUDNN = -65504.0


def _attend(
    gpu: Gpu,
    _func: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Answer one call as the card would.

    Raises:
        SimulationUnsupported: no kernel that is switched on can run the call; on the card it would fail, too.
    """
    call = AttentionCall(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    kernel = choose_kernel(gpu, call)
    if kernel is None:
        raise SimulationUnsupported(
            f"No attention kernel that is switched on can run {query.dtype} tensors of shape {tuple(query.shape)} on {gpu.label}, "
            "so the call would fail there. Allow SDPBackend.MATH in sdpa_kernel, or change the mask, dtype or head size."
        )
    return _KERNELS[kernel](call)


def _flash(call: AttentionCall) -> Tensor:
    head_dim = call.query.shape[-1]
    scale = head_dim**-0.5 if call.scale is None else call.scale
    query, key, value = (_padded(tensor, _FLASH_ALIGNMENT) for tensor in (call.query, call.key, call.value))
    out: Tensor = _aten._scaled_dot_product_flash_attention(query, key, value, call.dropout, call.is_causal, False, scale=scale)[0]
    return out if out.shape[-1] == head_dim else out[..., :head_dim]


def _efficient(call: AttentionCall) -> Tensor:
    mask = _additive(call.mask, call.query.dtype, float("-inf"))
    if mask is not None:
        if any(stride % _MASK_ALIGNMENT for stride in mask.stride()[:-1]) or mask.stride(-1) != 1:
            size = mask.shape[-1]
            mask = functional.pad(mask, (0, _MASK_ALIGNMENT - size % _MASK_ALIGNMENT))[..., :size]
        mask = mask.expand(*call.query.shape[:3], call.key.shape[2])
    out: Tensor = _aten._scaled_dot_product_efficient_attention(
        call.query, call.key, call.value, mask, call.needs_backward, call.dropout, call.is_causal, scale=call.scale
    )[0]
    return out


def _cudnn(call: AttentionCall) -> Tensor:
    mask = _additive(call.mask, call.query.dtype, _LOWEST_FOR_CUDNN)
    out: Tensor = _aten._scaled_dot_product_cudnn_attention(
        call.query, call.key, call.value, mask, call.needs_backward, call.dropout, call.is_causal, False, scale=call.scale
    )[0]
    return out


def _math(call: AttentionCall) -> Tensor:
    dtype = call.query.dtype
    query, key, value = (_accumulating(tensor) for tensor in (call.query, call.key, call.value))
    scale = abs(query.shape[-1] ** -0.5 if call.scale is None else call.scale) ** 0.5
    query = query * scale
    mask = _additive(call.mask, dtype, float("-inf"))
    if call.is_causal:
        ones = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device)
        mask = _additive(ones.tril(), query.dtype, float("-inf"))
    if call.enable_gqa and query.shape[-3] != key.shape[-3]:
        key, value = (tensor.repeat_interleave(query.shape[-3] // tensor.shape[-3], -3) for tensor in (key, value))
    scores = query @ (key.transpose(-2, -1) * scale)
    if mask is not None:
        scores.add_(mask)
    weights = torch._safe_softmax(scores, -1)
    del scores
    if call.dropout > 0:
        weights = torch.native_dropout(weights, call.dropout, True)[0]
    return (weights @ value).to(dtype)


def _accumulating(tensor: Tensor) -> Tensor:
    """Return a tensor in the precision in which the composed kernel computes: float32 for half ones, unless the program allows less."""
    if torch._C._get_math_sdp_allow_fp16_bf16_reduction() or tensor.dtype not in (torch.float16, torch.bfloat16):
        return tensor
    return tensor.float()


def _additive(mask: Tensor | None, dtype: torch.dtype, lowest: float) -> Tensor | None:
    """Return what is added to the scores."""
    if mask is None or mask.dtype is not torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.scalar_tensor(lowest, dtype=dtype, device=mask.device))


def _padded(tensor: Tensor, alignment: int) -> Tensor:
    """Return a tensor whose last dimension is a multiple of ``alignment``."""
    missing = -tensor.shape[-1] % alignment
    return functional.pad(tensor, (0, missing)) if missing else tensor


_KERNELS: dict[SDPBackend, Callable[[AttentionCall], Tensor]] = {
    SDPBackend.FLASH_ATTENTION: _flash,
    SDPBackend.EFFICIENT_ATTENTION: _efficient,
    SDPBackend.CUDNN_ATTENTION: _cudnn,
    SDPBackend.MATH: _math,
}
FUNCTIONS[functional.scaled_dot_product_attention] = _attend

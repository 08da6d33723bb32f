"""Which attention kernel CUDA runs for a call of ``scaled_dot_product_attention``: a card and the call -> a kernel's name.

The rules are those of torch 2.13: sdp::select_sdp_backend and the checks it lists (ATen/native/transformers/cuda/sdp_utils.cpp and
ATen/native/transformers/sdp_utils_cpp.h). What a program switches off or orders with ``torch.nn.attention.sdpa_kernel`` is respected.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from profiler.devices import Gpu

_HALF = frozenset((torch.float16, torch.bfloat16))
_MAX_FLASH_HEAD_DIM = 256
_MAX_FLASH_HEAD_DIM_TO_TRAIN = 192
"""On cards whose multiprocessors have little shared memory; between 224 and 256 the kernel works there without dropout."""
_MAX_CUDNN_HEAD_DIM = 128
_MAX_CUDNN_SIZE = 65535


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """One call; tensors are ``(batch, heads, tokens, head size)``."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    dropout: float
    is_causal: bool
    scale: float | None
    enable_gqa: bool

    @property
    def needs_backward(self) -> bool:
        """Whether backward will come."""
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (self.query, self.key, self.value))


def choose_kernel(gpu: Gpu, call: AttentionCall) -> SDPBackend | None:
    """Return the first kernel, in torch's order of preference, that is switched on and can run the call; None if none can."""
    return next((kernel for kernel in _preferences(gpu) if _SWITCHES[kernel]() and _CAN_RUN[kernel](gpu, call)), None)


def _preferences(gpu: Gpu) -> list[SDPBackend]:
    """Return the kernels in torch's order; cuDNN's comes first on Hopper and B200 unless the program or the environment says otherwise."""
    order = [SDPBackend(number) for number in torch._C._get_sdp_priority_order()]
    known = [kernel for kernel in order if kernel in _CAN_RUN]
    is_default = known == [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH, SDPBackend.CUDNN_ATTENTION]
    if is_default and gpu.compute_capability[0] in (9, 10) and os.environ.get("TORCH_CUDNN_SDPA_DEPRIORITIZED") != "1":
        return [SDPBackend.CUDNN_ATTENTION, *known[:-1]]
    return known


def _can_run_flash(gpu: Gpu, call: AttentionCall) -> bool:
    return (
        gpu.compute_capability >= (8, 0)
        and call.mask is None
        and call.query.dtype in _HALF
        and _is_dense(call)
        and _heads_fit(call, takes_grouped=True)
        and call.query.shape[-1] == call.key.shape[-1] == call.value.shape[-1] <= _MAX_FLASH_HEAD_DIM
        and _flash_can_train(gpu, call)
        and not (call.is_causal and call.query.shape[-2] != call.key.shape[-2])
    )


def _flash_can_train(gpu: Gpu, call: AttentionCall) -> bool:
    if not call.needs_backward or gpu.compute_capability not in ((8, 6), (8, 7), (8, 9), (12, 0), (12, 1)):
        return True
    head_dim = call.query.shape[-1]
    return head_dim <= _MAX_FLASH_HEAD_DIM_TO_TRAIN or (head_dim > 224 and call.dropout == 0)


def _can_run_efficient(gpu: Gpu, call: AttentionCall) -> bool:
    is_ampere = gpu.compute_capability >= (8, 0)
    alignment = _gemm_alignment(gpu, call.query.dtype)
    return (
        call.query.dtype in (_HALF | {torch.float32} if is_ampere else {torch.float16, torch.float32})
        and _is_dense(call)
        and _heads_fit(call, takes_grouped=False)
        and call.query.shape[-1] == call.key.shape[-1]
        and call.query.shape[-1] % alignment == 0
        and call.value.shape[-1] % alignment == 0
        and not (is_ampere and any(tensor.storage_offset() % alignment for tensor in (call.query, call.key, call.value)))
    )


def _gemm_alignment(gpu: Gpu, dtype: torch.dtype) -> int:
    """Return of how many numbers the head size must be a multiple."""
    is_half = dtype in _HALF
    if gpu.compute_capability >= (8, 0) or is_half:
        return 8 if is_half else 4
    return 1


def _can_run_cudnn(gpu: Gpu, call: AttentionCall) -> bool:
    low_precision = _HALF if gpu.compute_capability >= (8, 0) else {torch.float16}
    head_dims = (call.query.shape[-1], call.value.shape[-1])
    return (
        gpu.compute_capability >= (8, 0)
        and call.query.dtype in low_precision
        and _is_dense(call)
        and _heads_fit(call, takes_grouped=True)
        and (max(head_dims) <= _MAX_CUDNN_HEAD_DIM or (head_dims == (192, 128) and gpu.compute_capability[0] in (9, 10)))
        and not any(size % 8 for size in head_dims)
        and max(call.query.shape[:2]) <= _MAX_CUDNN_SIZE
        and call.key.shape[-2] > 1
        and (call.dropout == 0 or call.query.shape[-2] > 1)
        and call.dropout * 16 == int(call.dropout * 16)
        and not (torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled())
    )


def _is_dense(call: AttentionCall) -> bool:
    """Return whether sizes and layout are what fused kernels read: four dimensions, none empty, heads contiguous."""
    tensors = (call.query, call.key, call.value)
    return (
        all(tensor.dim() == 4 for tensor in tensors)
        and all(tensor.stride(-1) == 1 and tensor.shape[-2] > 0 for tensor in tensors)
        and (call.mask is None or call.mask.stride(-1) == 1 or call.mask.shape[-1] == 1)
        and len({tensor.shape[0] for tensor in tensors}) == 1
    )


def _heads_fit(call: AttentionCall, *, takes_grouped: bool) -> bool:
    """Return whether the numbers of heads are equal, or, where the kernel takes them, grouped as ``enable_gqa`` allows."""
    query, key, value = (tensor.shape[1] for tensor in (call.query, call.key, call.value))
    if takes_grouped and call.enable_gqa:
        return key == value and query % key == 0
    return query == key == value


_CAN_RUN: dict[SDPBackend, Callable[[Gpu, AttentionCall], bool]] = {
    SDPBackend.FLASH_ATTENTION: _can_run_flash,
    SDPBackend.EFFICIENT_ATTENTION: _can_run_efficient,
    SDPBackend.MATH: lambda _gpu, _call: True,
    SDPBackend.CUDNN_ATTENTION: _can_run_cudnn,
}
_SWITCHES: dict[SDPBackend, Callable[[], bool]] = {
    SDPBackend.FLASH_ATTENTION: torch.backends.cuda.flash_sdp_enabled,
    SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.mem_efficient_sdp_enabled,
    SDPBackend.MATH: torch.backends.cuda.math_sdp_enabled,
    SDPBackend.CUDNN_ATTENTION: torch.backends.cuda.cudnn_sdp_enabled,
}

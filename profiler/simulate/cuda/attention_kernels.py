"""What the fused attention kernels allocate beside their results.

Read in torch 2.13: flash is mha_fwd and mha_bwd (ATen/native/transformers/cuda/flash_attn/flash_api.cpp), efficient is
_efficient_attention_forward and _efficient_attention_backward (ATen/native/transformers/cuda/attention.cu, attention_backward.cu), with
the tiles of mem_eff_attention/kernels/cutlassF.h and cutlassB.h. That the efficient kernel's seed and offset are on the GPU, without
dropout too, is measured: 1,024 bytes a layer on an RTX A6000 (torch 2.14.1). The workspaces of cuDNN's kernel are the library's and not
modelled.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor

from profiler.devices import Gpu
from profiler.simulate.cuda.kernels import KERNELS, KernelCall

_aten = torch.ops.aten
_FLOAT_BYTES = 4
_FLASH_MAX_SPLITS = 128
_EFFICIENT_MAX_RF_HEAD_DIM = 128
"""Up to this head size the forward kernel keeps its output in registers."""
_EFFICIENT_TARGET_BLOCKS = 200


def _flash_forward(call: KernelCall) -> Any:
    query, key = call.args[:2]
    dropout = _argument(call, 3, "dropout_p", 0.0)
    out, logsumexp, *lengths, seed, offset, debug_mask = call.run()
    call.keep([out, logsumexp])
    with ExitStack() as scratch:
        if dropout == 0:
            for num_bytes in _split_buffers(call.gpu, query, key):
                scratch.enter_context(call.scratch(num_bytes))
        else:
            scratch.enter_context(call.scratch(seed.nbytes))  # made, and made again once the generator's lock is held
            call.keep([offset])
        call.keep([seed, offset])
    return (out, logsumexp, *lengths, seed, offset, debug_mask)


def _split_buffers(gpu: Gpu, query: Tensor, key: Tensor) -> tuple[int, ...]:
    """Return the bytes of the partial log-sum-exp and the partial output, where the kernel splits the keys to fill the card."""
    batch, num_heads, length, head_dim = query.shape
    if length == 1 and num_heads > key.shape[1]:
        length, num_heads = num_heads // key.shape[1], key.shape[1]  # the heads of a group count as its tokens
    block = 256 if head_dim <= 64 else 128 if head_dim <= 128 else 64
    splits = _num_splits(batch * num_heads * ceil(length / 64), 2 * gpu.num_multiprocessors, ceil(key.shape[2] / block))
    if splits == 1:
        return ()
    rows = splits * batch * num_heads * length
    return rows * _FLOAT_BYTES, rows * _flash_head_dim(head_dim) * _FLOAT_BYTES


def _num_splits(num_blocks: int, num_slots: int, num_key_blocks: int) -> int:
    """Return the fewest splits that occupy the card nearly as well as the best number does."""
    if num_blocks >= 0.8 * num_slots:
        return 1
    efficiencies = {}
    for splits in range(1, min(_FLASH_MAX_SPLITS, num_slots, num_key_blocks) + 1):
        if splits == 1 or ceil(num_key_blocks / splits) != ceil(num_key_blocks / (splits - 1)):
            waves = num_blocks * splits / num_slots
            efficiencies[splits] = waves / ceil(waves)
    best = max(efficiencies.values())
    return next(splits for splits, efficiency in efficiencies.items() if efficiency >= 0.85 * best)


def _flash_head_dim(head_dim: int) -> int:
    return _round_up(head_dim, 32 if head_dim <= 128 else 64)


def _flash_backward(call: KernelCall) -> Any:
    grad_out, query, key = call.args[:3]
    out = call.args[4]
    batch, num_heads, length, head_dim = query.shape
    rows = batch * num_heads * _round_up(length, 128)
    copies = 1
    if torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled():
        copies = ceil(call.gpu.num_multiprocessors / (batch * num_heads))
    expanded = 0 if key.shape[1] == num_heads else batch * num_heads * key.shape[2] * head_dim * key.element_size()
    with ExitStack() as scratch:
        for tensor in (grad_out, out):
            scratch.enter_context(call.scratch(_copied_bytes(tensor)))
        result = call.keep(call.run())
        for num_bytes in (rows * _FLOAT_BYTES, copies * rows * _flash_head_dim(head_dim) * _FLOAT_BYTES, expanded, expanded):
            scratch.enter_context(call.scratch(num_bytes))
    return result


def _efficient_forward(call: KernelCall) -> Any:
    _, key, value = call.args[:3]
    out, logsumexp, seed, offset = call.run()
    call.keep([seed, offset, out, logsumexp])
    needs_buffer = max(key.shape[-1], value.shape[-1]) > _EFFICIENT_MAX_RF_HEAD_DIM and out.element_size() < _FLOAT_BYTES
    with call.scratch(out.numel() * _FLOAT_BYTES if needs_buffer else 0):
        return out, logsumexp, seed, offset


def _efficient_backward(call: KernelCall) -> Any:
    grad_out, query, key, value = call.args[:4]
    batch, num_heads, length, _ = query.shape
    dropout = _argument(call, 9, "dropout_p", 0.0)
    with call.scratch(_copied_bytes(grad_out)):
        result = call.keep(call.run())
        workspace = _efficient_workspace(call.gpu, query, key, value, dropout > 0)
        with call.scratch(batch * num_heads * length * _FLOAT_BYTES), call.scratch(workspace):
            return result


class _Tile(NamedTuple):
    """A backward kernel of cutlassB.h: how many queries and keys a block takes, and up to which head size."""

    num_queries: int
    num_keys: int
    max_head_dim: int


def _efficient_workspace(gpu: Gpu, query: Tensor, key: Tensor, value: Tensor, has_dropout: bool) -> int:
    """Return the bytes in which blocks add up the gradients of queries, and of keys and values that do not fit in registers."""
    batch, num_heads, length, head_dim = query.shape
    head_dim_value = value.shape[-1]
    tile = _tile(gpu, query.dtype, max(head_dim, head_dim_value), has_dropout)
    is_half = query.element_size() < _FLOAT_BYTES
    header = 4  # a lock and a counter, padded to 16 bytes
    tile_elements = header + tile.num_queries * tile.num_keys
    elements = ceil(length / tile.num_queries) * ceil(head_dim / tile.num_keys) * tile_elements
    if is_half and tile.max_head_dim > tile.num_queries:
        splits = max(1, min(ceil(key.shape[2] / tile.num_keys), _EFFICIENT_TARGET_BLOCKS // (batch * num_heads)))
        elements += sum(splits * tile.num_keys * _round_up(size, tile.num_queries) for size in (head_dim, head_dim_value))
    return batch * num_heads * _round_up(elements, 4) * _FLOAT_BYTES


def _tile(gpu: Gpu, dtype: torch.dtype, head_dim: int, has_dropout: bool) -> _Tile:
    """Return the first kernel that fits the head size and the card's shared memory."""
    for max_head_dim in (32, 64):
        if head_dim <= max_head_dim:
            return _Tile(64, 64, max_head_dim)
    is_half = dtype is not torch.float32
    has_much_memory = gpu.compute_capability[0] in (9, 10) or gpu.compute_capability == (8, 0)  # 163 KiB a block or more, else 99 or less
    max_head_dim = 128 if head_dim <= 128 else 65536
    if gpu.compute_capability >= (8, 0) and is_half and max_head_dim == 128:
        if has_much_memory:
            return _Tile(128, 128, 128)
        return _Tile(128, 64, 96) if head_dim <= 96 and not has_dropout else _Tile(64, 64, 128)
    return _Tile(128 if has_much_memory else 64, 64, max_head_dim)


def _safe_softmax(call: KernelCall) -> Any:
    """Compute a softmax, compare its input with minus infinity, and write the result anew where a row is masked."""
    scores = call.args[0]
    result = call.run()
    with call.scratch(result.nbytes), call.scratch(result.element_size()), call.scratch(scores.numel()):
        return call.keep(result)


def _copied_bytes(tensor: Tensor) -> int:
    """Return the bytes of the copy that a kernel makes of ``(batch, heads, tokens, head size)`` unless heads follow tokens in memory."""
    return 0 if tensor.transpose(1, 2).is_contiguous() else tensor.numel() * tensor.element_size()


def _argument(call: KernelCall, position: int, name: str, default: Any) -> Any:
    return call.args[position] if len(call.args) > position else call.kwargs.get(name, default)


def _round_up(number: int, multiple: int) -> int:
    return number + -number % multiple


KERNELS[_aten._scaled_dot_product_flash_attention.default] = _flash_forward
KERNELS[_aten._scaled_dot_product_flash_attention_backward.default] = _flash_backward
KERNELS[_aten._scaled_dot_product_efficient_attention.default] = _efficient_forward
KERNELS[_aten._scaled_dot_product_efficient_attention_backward.default] = _efficient_backward
KERNELS[_aten._safe_softmax.default] = _safe_softmax

"""Attention on a simulated GPU: which kernel runs, what it keeps for backward and what scratch it needs, in bytes counted by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from profiler.devices import find_gpu
from profiler.errors import SimulationUnsupported
from profiler.simulate.cuda.attention import AttentionCall, choose_kernel
from profiler.simulate.cuda.attention_kernels import _efficient_workspace, _split_buffers
from profiler.simulate.session import Simulation

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
FLASH, EFFICIENT, CUDNN, MATH = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
)
SEEDS_BYTES = 2 * 512


def heads(num_heads: int, length: int, head_dim: int, dtype: torch.dtype = BF16, device: torch.device | str = "meta") -> Tensor:
    """Return ``(batch, tokens, heads, head size)``, as projections make it; attention is given its transposed view."""
    return torch.empty(1, length, num_heads, head_dim, dtype=dtype, device=device, requires_grad=True)


def call(
    query: Tensor,
    key: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
    enable_gqa: bool = False,
    dropout: float = 0,
) -> AttentionCall:
    key = query if key is None else key
    return AttentionCall(query.transpose(1, 2), key.transpose(1, 2), key.transpose(1, 2), mask, dropout, is_causal, None, enable_gqa)


MASK = torch.empty(1, 1, 64, 64, dtype=torch.bool, device="meta")


@pytest.mark.parametrize(
    ("card", "attention", "expected"),
    [
        ("rtx-a6000", call(heads(4, 64, 64)), FLASH),
        ("rtx-a6000", call(heads(4, 64, 64), mask=MASK), EFFICIENT),
        ("rtx-a6000", call(heads(4, 64, 64, FP32)), EFFICIENT),
        ("rtx-a6000", call(heads(4, 64, 60)), FLASH),  # padded to 64
        ("rtx-a6000", call(heads(4, 64, 60), mask=MASK), MATH),  # not a multiple of 8
        ("rtx-a6000", call(heads(4, 64, 260)), MATH),
        ("rtx-a6000", call(heads(4, 64, 256)), FLASH),
        ("rtx-a6000", call(heads(4, 64, 256), dropout=0.1), EFFICIENT),  # backward lacks shared memory
        ("a100-80gb", call(heads(4, 64, 256), dropout=0.1), FLASH),
        ("rtx-a6000", call(heads(4, 64, 64), heads(4, 32, 64), is_causal=True), EFFICIENT),  # not square
        ("rtx-a6000", call(heads(4, 64, 64), heads(2, 64, 64), enable_gqa=True), FLASH),
        ("rtx-a6000", call(heads(4, 64, 64), heads(2, 64, 64), enable_gqa=True, mask=MASK), MATH),
        ("t4", call(heads(4, 64, 64, FP16)), EFFICIENT),
        ("t4", call(heads(4, 64, 64, BF16)), MATH),
        ("h100-80gb", call(heads(4, 64, 64)), CUDNN),
        ("h100-80gb", call(heads(4, 64, 64, FP32)), EFFICIENT),
        ("h100-80gb", call(heads(4, 64, 160)), FLASH),  # too large for cuDNN
        ("rtx-5090", call(heads(4, 64, 64)), FLASH),
    ],
)
def test_the_card_decides_the_kernel(card: str, attention: AttentionCall, expected: SDPBackend) -> None:
    assert choose_kernel(find_gpu(card), attention) == expected


def test_what_a_program_pins_is_respected() -> None:
    gpu, attention = find_gpu("h100-80gb"), call(heads(4, 64, 64))
    with sdpa_kernel([EFFICIENT, MATH]):
        assert choose_kernel(gpu, attention) == EFFICIENT
    with sdpa_kernel([MATH, FLASH], set_priority=True):
        assert choose_kernel(gpu, attention) == MATH


def test_the_environment_can_put_cudnn_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1")
    assert choose_kernel(find_gpu("h100-80gb"), call(heads(4, 64, 64))) == FLASH


def test_a_call_that_no_allowed_kernel_can_run_is_refused(gpu: Simulation) -> None:
    query = heads(4, 64, 64, FP32, gpu.device).transpose(1, 2)
    with sdpa_kernel(FLASH), pytest.raises(SimulationUnsupported, match=r"float32.*\(1, 4, 64, 64\).*RTX A6000.*Allow SDPBackend.MATH"):
        functional.scaled_dot_product_attention(query, query, query)


def growth(act: Callable[[], object]) -> tuple[int, int]:
    """Return by how much memory has grown after ``act``, whose result lives on, and by how much it grew at most."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = act()
    after, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    del result
    return after - before, peak - before


def test_flash_keeps_its_output_the_log_sum_exp_and_the_generators_state(gpu: Simulation) -> None:
    query = heads(4, 128, 64, BF16, gpu.device).transpose(1, 2)
    out, logsumexp = 4 * 128 * 64 * 2, 4 * 128 * 4
    kept, peak = growth(lambda: functional.scaled_dot_product_attention(query, query, query, is_causal=True))
    assert kept == peak == out + logsumexp + SEEDS_BYTES


def test_efficient_keeps_the_mask_of_every_call_in_the_compute_dtype(gpu: Simulation) -> None:
    query = heads(4, 128, 64, BF16, gpu.device).transpose(1, 2)
    mask = torch.ones(1, 1, 128, 128, dtype=torch.bool, device=gpu.device)
    out, logsumexp, additive = 4 * 128 * 64 * 2, 4 * 128 * 4, 128 * 128 * 2
    for _ in range(2):
        kept, _ = growth(lambda: functional.scaled_dot_product_attention(query, query, query, attn_mask=mask))
        assert kept == out + logsumexp + additive + SEEDS_BYTES


def test_a_mask_whose_rows_are_not_aligned_is_padded(gpu: Simulation) -> None:
    query = heads(4, 100, 64, BF16, gpu.device).transpose(1, 2)
    mask = torch.ones(1, 1, 100, 100, dtype=torch.bool, device=gpu.device)
    out, logsumexp = 4 * 100 * 64 * 2, 4 * 128 * 4  # 100 tokens are rounded up to 32
    padded = 20_992  # 100 rows of 104 numbers of 2 bytes, rounded up to 512
    kept, peak = growth(lambda: functional.scaled_dot_product_attention(query, query, query, attn_mask=mask))
    assert kept == out + logsumexp + padded + SEEDS_BYTES
    assert peak == kept  # the mask before padding is gone when the kernel runs


def test_a_head_size_that_flash_cannot_read_is_padded_and_kept_so(gpu: Simulation) -> None:
    query = heads(4, 128, 60, BF16, gpu.device).transpose(1, 2)
    padded, logsumexp = 4 * 128 * 64 * 2, 4 * 128 * 4
    kept, _ = growth(lambda: functional.scaled_dot_product_attention(query, query, query))
    assert kept == 4 * padded + logsumexp + SEEDS_BYTES


def test_flash_backward_adds_up_in_float32_and_expands_grouped_heads(gpu: Simulation) -> None:
    query, key = (heads(number, 128, 64, BF16, gpu.device).transpose(1, 2) for number in (4, 2))
    out = functional.scaled_dot_product_attention(query, key, key, enable_gqa=True)
    grad = torch.empty_like(out)
    queries, keys = 4 * 128 * 64 * 2, 2 * 128 * 64 * 2
    delta, accumulated, expanded = 4 * 128 * 4, 4 * 128 * 64 * 4, 4 * 128 * 64 * 2
    _, peak = growth(lambda: torch.autograd.grad(out, (query, key), grad))
    assert peak == queries + 2 * keys + delta + accumulated + 2 * expanded


def test_efficient_backward_adds_up_the_queries_gradient_in_tiles(gpu: Simulation) -> None:
    query, key, value = (heads(4, 128, 64, BF16, gpu.device).transpose(1, 2) for _ in range(3))
    with sdpa_kernel(EFFICIENT):
        out = functional.scaled_dot_product_attention(query, key, value)
    grad = torch.empty_like(out)
    gradient, delta = 4 * 128 * 64 * 2, 4 * 128 * 4
    workspace = 131_584  # 4 heads x 2 tiles of 64 queries x (64 x 64 floats and 16 bytes), rounded up to 512
    _, peak = growth(lambda: torch.autograd.grad(out, (query, key, value), grad))
    assert peak == 3 * gradient + delta + workspace


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("a100-80gb", 4 * (128 * 128 + 4) * 4),  # one tile of 128 x 128
        ("rtx-a6000", 4 * (4 * (64 * 64 + 4) + 2 * (2 * 64 * 128)) * 4),  # four of 64 x 64; keys' and values' in memory, too
    ],
)
def test_little_shared_memory_means_smaller_tiles_and_a_larger_workspace(card: str, expected: int) -> None:
    query = heads(4, 128, 128).transpose(1, 2)
    assert _efficient_workspace(find_gpu(card), query, query, query, has_dropout=False) == expected


def test_one_token_of_grouped_heads_splits_a_long_cache_over_the_card() -> None:
    query, key = heads(32, 1, 64).transpose(1, 2), heads(8, 2048, 64).transpose(1, 2)
    splits, rows = 8, 8 * 4  # 2,048 keys in blocks of 256; 8 groups of 4 heads
    assert _split_buffers(find_gpu("rtx-a6000"), query, key) == (splits * rows * 4, splits * rows * 64 * 4)


def test_a_long_prompt_fills_the_card_without_splitting() -> None:
    query = heads(32, 2048, 64).transpose(1, 2)
    assert _split_buffers(find_gpu("rtx-a6000"), query, query) == ()


def test_math_computes_in_float32_and_keeps_the_softmax(gpu: Simulation) -> None:
    query, key, value = (heads(4, 128, 64, BF16, gpu.device).transpose(1, 2) for _ in range(3))
    torch.mm(torch.empty(2, 2, device=gpu.device), torch.empty(2, 2, device=gpu.device))  # the workspace
    with sdpa_kernel(MATH):
        kept, _ = growth(lambda: functional.scaled_dot_product_attention(query, key, value))
    in_float32, softmax, out = 4 * 128 * 64 * 4, 4 * 128 * 128 * 4, 4 * 128 * 64 * 2
    assert kept == 3 * in_float32 + softmax + out  # scaled query and key, value


def test_what_a_checkpoint_computes_again_runs_the_cards_kernel(gpu: Simulation) -> None:
    query = heads(4, 128, 64, BF16, gpu.device).transpose(1, 2)
    out = checkpoint(lambda q: functional.scaled_dot_product_attention(q, q, q, is_causal=True), query, use_reentrant=False)
    out.sum().backward()  # torch compares what was saved then and now


def test_attention_modules_run_the_cards_kernel(gpu: Simulation) -> None:
    attention = nn.MultiheadAttention(64, 4, batch_first=True, dtype=BF16).to(gpu.device)
    tokens = torch.empty(1, 1024, 64, dtype=BF16, device=gpu.device)
    _, peak = growth(lambda: attention(tokens, tokens, tokens, need_weights=False)[0])
    scores = 4 * 1024 * 1024 * 2
    assert 8_519_680 < peak < 8_519_680 + scores  # cuBLAS's workspace, and no scores

"""Layers, heads and tokens -> bytes of keys and values."""

from __future__ import annotations

from profiler.models.config import ConfigFacts, Head
from profiler.spec import Workload


def kv_bytes_per_token(num_layers: int, num_kv_heads: int, head_dim: int, itemsize: int) -> int:
    """Return the bytes that one token of one sequence adds to the cache: ``2 * layers * kv_heads * head_dim * itemsize``.

    Source: Pope et al. 2022, https://arxiv.org/abs/2211.05102, section 3.3. Valid for attention that caches keys and values as they are,
    multi-head, grouped or multi-query; latent attention and quantized caches hold less.
    """
    return 2 * num_layers * num_kv_heads * head_dim * itemsize


def dynamic_cache_bytes(facts: ConfigFacts, workload: Workload, new_tokens: int, itemsize: int) -> int:
    """Return the bytes of all keys and values after the prompt and ``new_tokens``; 0 for encoders and recurrent models, which keep none.

    A cache that grows holds what was seen: all tokens, or with a sliding window of ``w`` the last ``w - 1``. While it grows, the old and
    the new tensor of one layer exist for a moment, which comes on top.
    """
    sizes = _cached_sizes(facts)
    if sizes is None:
        return 0
    tokens = workload.seq + new_tokens
    if facts.head is Head.SEQ2SEQ:
        tokens += 1  # the start token of the decoder, whose layers cache its own tokens and the prompt's
    elif facts.sliding_window is not None:
        tokens = min(tokens, facts.sliding_window - 1)
    return kv_bytes_per_token(*sizes, itemsize) * tokens * workload.batch


def static_cache_bytes(facts: ConfigFacts, batch: int, max_tokens: int, itemsize: int) -> int:
    """Return the bytes of a cache that is made for ``max_tokens`` at once, filled or not; a sliding window of ``w`` needs ``w`` of them.

    Valid for decoders; 0 for encoders and recurrent models. Encoder-decoder models keep the prompt's keys and values in a second cache,
    which is not counted.
    """
    sizes = _cached_sizes(facts)
    if sizes is None:
        return 0
    tokens = max_tokens if facts.sliding_window is None else min(max_tokens, facts.sliding_window)
    return kv_bytes_per_token(*sizes, itemsize) * tokens * batch


def packed_cache_bytes(
    facts: ConfigFacts, workload: Workload, new_tokens: int, itemsize: int, *, bits: int, group: int = 64, residual: int = 128
) -> int:
    """Return the bytes of a cache of integers after the prompt and ``new_tokens``: groups with two numbers of the precision each.

    The prompt is packed at once, and new tokens whenever ``residual`` of them have gathered; the others stay as they are. While a layer is
    read it exists whole, too, which comes on top. Source: transformers' QuantizedLayer; Liu et al. 2024, https://arxiv.org/abs/2402.02750.
    Valid for decoders that attend to every token.
    """
    sizes = _cached_sizes(facts)
    if sizes is None:
        return 0
    num_layers, num_kv_heads, head_dim = sizes
    waiting = new_tokens % residual
    numbers = workload.batch * (workload.seq + new_tokens - waiting) * num_kv_heads * head_dim
    num_groups = -(-numbers // group)
    packed = 2 * num_layers * num_groups * (group * bits // 8 + 2 * itemsize)
    return packed + kv_bytes_per_token(*sizes, itemsize) * waiting * workload.batch


def _cached_sizes(facts: ConfigFacts) -> tuple[int, int, int] | None:
    """Return layers, key-value heads and head size of the layers that cache; None where none does."""
    if facts.head not in (Head.CAUSAL_LM, Head.SEQ2SEQ) or facts.num_kv_heads is None or facts.head_dim is None:
        return None
    num_layers = facts.num_layers
    if facts.head is Head.SEQ2SEQ:
        num_layers = facts.num_decoder_layers or num_layers
    return num_layers, facts.num_kv_heads, facts.head_dim

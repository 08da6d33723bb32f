"""KV caches: bytes a token and a sequence, and the slopes of a benchmark's peak memory over its batch."""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks.published.table import EXACT, PRINTED, Published, Row, Tolerance
from profiler.estimate.activations import logits_bytes
from profiler.estimate.kv_cache import kv_bytes_per_token
from profiler.models.catalogue import entry
from profiler.models.config import ConfigFacts
from profiler.units import GIB, KIB

_MODELS = {"Llama 3.1 8B": "llama-3-8b", "Llama 3.1 70B": "llama-3-70b", "Llama 3.1 405B": "llama-3.1-405b"}
_TOKENS = {"1k": 1024, "16k": 16_000, "128k": 128_000}
_OPT_13B = kv_bytes_per_token(num_layers=40, num_kv_heads=40, head_dim=128, itemsize=2)
_MB = 10**6
_PROMPT, _NEW_TOKENS = 512, 512


def rows(published: Published) -> Iterator[Row]:
    """Yield the caches that papers and blogs print, then the slopes."""
    yield from published.row("kv-opt13b", _OPT_13B / KIB, EXACT)
    yield from published.row("kv-opt13b-req", _OPT_13B * 2048 / GIB, PRINTED, "its GB are GiB")
    llama_7b = _bytes_per_token(entry("llama-2-7b").facts)
    yield from published.row("kv-llama2-10k", llama_7b * 10_000 / 1e9, PRINTED)
    for identity in published.ids("kv-Llama 3.1"):
        model, _, tokens = identity.removeprefix("kv-").rpartition("-")
        if model in _MODELS and tokens in _TOKENS:
            ours = _bytes_per_token(entry(_MODELS[model]).facts) * _TOKENS[tokens] / GIB
            yield from published.row(identity, ours, PRINTED, "its GB are GiB, its 1k is 1024 and its 16k 16000")
    yield from _slopes(published)


def _slopes(published: Published) -> Iterator[Row]:
    """Yield the growth a sequence between the smallest and the largest batch of each kernel, Llama-2-13B in 16 bits."""
    facts = entry("llama-2-13b").facts
    token = _bytes_per_token(facts)
    prompt_logits = logits_bytes(_PROMPT, facts.vocab_size, 2) + logits_bytes(_PROMPT, facts.vocab_size, 4)
    prefill = token * _PROMPT + prompt_logits
    generate = 2 * token * (_PROMPT + _NEW_TOKENS)
    notes = {
        "prefill": "the prompt's cache, and its logits in 16 and in 32 bits",
        "gen": "the cache twice: torch.cat holds the old and the new one",
    }
    for phase, ours in (("prefill", prefill), ("gen", generate)):
        for kernel in ("fp16", "gptq4-exllama"):
            batches = _batches(published, phase, kernel)
            if len(batches) > 1:
                yield _slope(published, batches, ours / _MB, f"{kernel}, {phase}: growth a sequence", notes[phase])


def _slope(published: Published, batches: dict[int, str], ours: float, what: str, note: str) -> Row:
    least, most = min(batches), max(batches)
    growth = (published.printed(batches[most]) - published.printed(batches[least])) / (most - least)
    ids = (batches[most], batches[least])
    return Row(ids=ids, what=f"Llama-2-13B, {what}", published=growth, ours=ours, unit="MB", tolerance=Tolerance(share=0.02), note=note)


def _batches(published: Published, phase: str, kernel: str) -> dict[int, str]:
    """Return the ids of one kernel by batch size."""
    found = (re.fullmatch(rf"gptq-{phase}-b(\d+)-{kernel}", identity) for identity in published.ids(f"gptq-{phase}-"))
    return {int(match[1]): match[0] for match in found if match}


def _bytes_per_token(facts: ConfigFacts) -> int:
    assert facts.num_kv_heads is not None
    assert facts.head_dim is not None
    return kv_bytes_per_token(facts.num_layers, facts.num_kv_heads, facts.head_dim, 2)

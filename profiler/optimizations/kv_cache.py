"""The KV cache: how keys and values of the tokens seen so far are kept while text is generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from profiler.models.catalogue import facts_of
from profiler.models.config import Head
from profiler.optimizations.base import Family, Optimization, Value
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from torch import nn

    from profiler.workloads import Setup

KV_CACHE = Family(
    name="kv-cache",
    label="Key-value cache",
    question="How are keys and values kept?",
    off_label="Grows with the text",
    workloads=frozenset((WorkloadKind.PREFILL, WorkloadKind.DECODE)),
)


class StaticCache(Optimization):
    """Room for all tokens from the start."""

    name = "static-cache"
    family = KV_CACHE
    label = "Static"
    aliases = ("static-kv-cache",)
    formula = "KV cache = 2 x layers x KV heads x head size x bytes x batch x (prompt + new tokens), from the first token on"
    source = "transformers StaticCache: https://huggingface.co/docs/transformers/kv_cache"
    explanation = (
        "Makes room for the prompt and every new token at the first forward and writes into it. The growing cache copies a layer's keys "
        "and values for each new token, so that both copies are there for a moment; this one never does, and holds room that a short "
        "answer never uses."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Give every prompt a cache of this kind."""
        setup.make_cache = _static_cache

    def refusal(self, job: Job) -> str | None:
        """Refuse models that keep no keys and values, or keep them in two caches."""
        if facts_of(job.model).head is not Head.CAUSAL_LM:
            return f"static-cache is for causal language models, and {job.model.name} is none. Switch it off."
        return super().refusal(job)


def _static_cache(model: nn.Module, num_tokens: int) -> Any:
    from transformers import StaticCache as Cache

    config: Any = model.config
    return Cache(config=config, max_cache_len=num_tokens)


OPTIMIZATIONS: tuple[Optimization, ...] = (StaticCache(),)

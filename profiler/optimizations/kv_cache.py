"""The KV cache: how keys and values of the tokens seen so far are kept while text is generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from profiler.models.catalogue import facts_of
from profiler.models.config import Head
from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import Scope
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from torch import nn

    from profiler.workloads import Setup

KV_CACHE = Family(
    name="kv-cache",
    label="Key-value cache",
    question="How are keys and values kept?",
    off_label="The library's choice",
    workloads=frozenset((WorkloadKind.PREFILL, WorkloadKind.DECODE)),
)


class DynamicCache(Optimization):
    """Room for the tokens that are there; what transformers makes by default."""

    name = "dynamic-cache"
    family = KV_CACHE
    label = "Dynamic"
    aliases = ("dynamic-kv-cache",)
    applies_to = Scope(part="keys and values", heads=frozenset((Head.CAUSAL_LM, Head.SEQ2SEQ)))
    formula = "KV cache = 2 x layers x KV heads x head size x bytes x batch x tokens so far, and one layer's twice while tokens are added"
    source = "transformers DynamicCache: https://huggingface.co/docs/transformers/kv_cache"
    explanation = (
        "Keeps the keys and values of the tokens so far, and no room for more: what transformers uses by default, so it changes nothing "
        "where no other cache is switched on. Each new token copies a layer's keys and values into tensors one token longer, so that both "
        "copies are there for a moment."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Do nothing: `rewrite` has said it without a toggle."""

    def rewrite(self, job: Job, options: Mapping[str, Value]) -> Job:
        """Return the same job: one in which no cache is switched on has this one."""
        return job


class StaticCache(Optimization):
    """Room for all tokens from the start."""

    name = "static-cache"
    family = KV_CACHE
    label = "Static"
    aliases = ("static-kv-cache",)
    applies_to = Scope(part="keys and values", heads=frozenset((Head.CAUSAL_LM,)))
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


def _static_cache(model: nn.Module, num_tokens: int) -> Any:
    from transformers import StaticCache as Cache

    config: Any = model.config
    return Cache(config=config, max_cache_len=num_tokens)


class QuantizedCache(Optimization):
    """Fewer bits a number."""

    name = "quantized-cache"
    family = KV_CACHE
    label = "Quantized"
    aliases = ("quantized-kv-cache",)
    applies_to = Scope(part="keys and values", heads=frozenset((Head.CAUSAL_LM,)))
    parameters = (
        Parameter(
            name="format",
            kind=ParameterKind.CHOICE,
            default="int4",
            choices=("float8", "int8", "int4", "int2"),
            help="Of each number. Integers come in groups with a scale and a least value; float8 has one scale a layer, set by the prompt.",
        ),
        Parameter(
            name="group",
            kind=ParameterKind.CHOICE,
            default="64",
            choices=("16", "32", "64", "128"),
            help="Integers that share a scale and a least value.",
        ),
        Parameter(
            name="residual",
            kind=ParameterKind.INTEGER,
            default=128,
            low=1,
            high=65_536,
            help="New tokens that stay as they are until so many have gathered; of integers only.",
        ),
    )
    formula = "bits / 8 a number, and 2 x bytes of the precision / group; up to residual - 1 tokens in the precision; one layer unpacked"
    source = (
        "transformers QuantizedCache: https://huggingface.co/docs/transformers/kv_cache; Liu et al. 2024, https://arxiv.org/abs/2402.02750"
    )
    explanation = (
        "Keeps keys and values in 8, 4 or 2 bits: of bfloat16's cache, int4 in groups of 64 leaves 28 %. Every forward unpacks one layer "
        "after another, so one layer's cache is there whole for a moment, twice where tokens are added: with few layers or short texts "
        "that outweighs what is saved. It helps with long contexts and large batches; weights and activations stay."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Give every prompt a cache of this kind."""
        from profiler.optimizations.packed_cache import float8_cache, packed_cache

        if options["format"] == "float8":
            setup.make_cache = lambda model, _: float8_cache(model)
            return
        bits = int(str(options["format"]).removeprefix("int"))
        group, residual = int(options["group"]), int(options["residual"])
        setup.make_cache = lambda model, _: packed_cache(model, bits, group, residual)

    def refusal(self, job: Job) -> str | None:
        """Refuse models whose cache has a window."""
        if facts_of(job.model).sliding_window is not None:
            return f"quantized-cache is for attention to every token, and {job.model.name} has a window. Switch it off."
        return super().refusal(job)


OPTIMIZATIONS: tuple[Optimization, ...] = (DynamicCache(), StaticCache(), QuantizedCache())

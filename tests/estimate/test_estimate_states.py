"""The closed formulas against hand computation, and against what real optimizers and caches hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from profiler.errors import SpecError
from profiler.estimate.states import StateEstimate, estimate_states, shortfall_warning
from profiler.models.build import build_model
from profiler.models.catalogue import entry, facts_of
from profiler.models.inputs import next_inputs, prompt_inputs
from profiler.spec import Job, Model, Toggle, Workload
from profiler.units import GIB


def estimate(name: str, *toggles: str, num_parameters: int | None = None, **workload: Any) -> StateEstimate:
    job = Job(model=Model(name=name), workload=Workload(**workload), toggles=tuple(map(Toggle.parse, toggles)))
    return estimate_states(num_parameters or entry(name).num_parameters_with_head, job)


def test_gpt2_in_float32_with_adamw_needs_16_bytes_a_parameter_and_its_logits() -> None:
    found = estimate("gpt2", batch=4, seq=128)
    parameters, logits = 124_439_808, 4 * 128 * 50_257 * 4
    assert found == StateEstimate(
        weights_bytes=4 * parameters,
        gradients_bytes=4 * parameters,
        optimizer_state_bytes=8 * parameters,
        logits_bytes=logits,
        kv_cache_bytes=0,
        lower_bound_bytes=16 * parameters + logits,
    )


@pytest.mark.parametrize(
    ("toggles", "bytes_per_parameter"),
    [
        (["sgd"], 4 + 4),
        (["sgd:momentum=0.9"], 4 + 4 + 4),
        (["adam"], 4 + 4 + 8),
        (["bf16"], 2 + 2 + 4),
        (["bf16", "sgd"], 2 + 2),
        (["master-weights"], 2 + 2 + 4 + 8),
        (["master-weights", "sgd"], 2 + 2 + 4),
        (["fp16", "rmsprop:momentum=0.9"], 2 + 2 + 4),
        (["adafactor"], 4 + 4),
    ],
)
def test_states_a_parameter_are_those_of_the_formula(toggles: list[str], bytes_per_parameter: int) -> None:
    found = estimate("gpt2", *toggles, num_parameters=1000)
    held_bytes = found.weights_bytes + found.gradients_bytes + found.master_bytes + found.optimizer_state_bytes
    assert held_bytes == 1000 * bytes_per_parameter
    assert found.lower_bound_bytes == 1000 * bytes_per_parameter + found.logits_bytes


def test_micro_batches_need_the_logits_of_one_part_only() -> None:
    whole, parts = estimate("gpt2", batch=8), estimate("gpt2", batch=8, micro_batches=4)
    assert whole.logits_bytes == 4 * parts.logits_bytes


def test_in_a_single_step_the_optimizers_state_comes_after_the_logits() -> None:
    found = estimate("gpt2", num_parameters=1000, steps=1, warmup_steps=0)
    assert found.logits_bytes > found.optimizer_state_bytes == 8000
    assert found.lower_bound_bytes == 8000 + found.logits_bytes


@pytest.mark.parametrize(("name", "bytes_per_token"), [("llama-2-13b", 819_200), ("llama-3.1-405b", 516_096), ("llama-3-8b", 131_072)])
def test_the_cache_of_one_token_is_the_published_one(name: str, bytes_per_token: int) -> None:
    found = estimate(name, "fp16", kind="prefill", batch=1, seq=1)
    assert found.kv_cache_bytes == bytes_per_token


def test_prefill_needs_weights_logits_and_cache() -> None:
    found = estimate("llama-3-8b", "bf16", kind="prefill", batch=2, seq=1000)
    logits, cache = 2 * 1000 * 128_256 * 2, 2 * 1000 * 131_072
    assert found.lower_bound_bytes == 8_030_261_248 * 2 + logits + cache


def test_decode_needs_whichever_is_more_the_prompts_logits_or_the_longer_cache() -> None:
    many = estimate("llama-3-8b", "bf16", kind="decode", batch=1, seq=10, new_tokens=4000)
    assert many.lower_bound_bytes == many.weights_bytes + 4010 * 131_072
    few = estimate("llama-3-8b", "bf16", kind="decode", batch=1, seq=1000, new_tokens=1)
    assert few.lower_bound_bytes == few.weights_bytes + 1000 * (131_072 + 128_256 * 2)


@pytest.mark.parametrize(
    "name", ["tiny-gpt2", "tiny-llama", "tiny-qwen", "tiny-mistral", "tiny-mixtral", "tiny-t5", "tiny-lstm", "tiny-bert"]
)
def test_the_cache_is_what_the_real_model_holds(name: str) -> None:
    facts = facts_of(Model(name=name))
    model = build_model(Model(name=name)).eval()
    with torch.inference_mode():
        inputs = prompt_inputs(facts, torch.full((2, 100), 5))
        outputs = model(**inputs)
        if name in ("tiny-lstm", "tiny-bert"):
            held = 0  # a hidden state, and nothing: neither grows with the tokens
        else:
            for _ in range(3):
                outputs = model(**next_inputs(facts, torch.full((2, 1), 5), outputs))
            held = cache_bytes(outputs.past_key_values)
    decode = name not in ("tiny-bert",)
    found = estimate(name, kind="decode" if decode else "prefill", batch=2, seq=100, new_tokens=3)
    assert found.kv_cache_bytes == held


def cache_bytes(cache: Any) -> int:
    if hasattr(cache, "self_attention_cache"):
        return cache_bytes(cache.self_attention_cache) + cache_bytes(cache.cross_attention_cache)
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def test_a_warning_names_what_is_needed_and_what_there_is() -> None:
    found = estimate("llama-3-8b", batch=1, seq=8)
    assert shortfall_warning(found, found.lower_bound_bytes) is None
    warning = shortfall_warning(found, 24 * GIB)
    assert warning is not None
    assert warning.startswith("This run needs at least 120 GiB before any activation, and 24.0 GiB is available.")


def test_an_impossible_job_is_refused() -> None:
    with pytest.raises(SpecError, match="cannot decode"):
        estimate("bert-base", kind="decode")


def test_with_lora_only_the_adapters_have_gradients_and_state() -> None:
    job = Job(
        model=Model(name="llama-3-8b"), workload=Workload(batch=1, seq=8), toggles=(Toggle("lora", (("rank", "16"),)), Toggle("bf16"))
    )
    found = estimate_states(8_030_261_248, job)

    of_a_layer = 16 * ((4096 + 4096) + (4096 + 1024) + (4096 + 1024) + (4096 + 4096))
    adapters_bytes = 32 * of_a_layer * 4
    assert found.weights_bytes == 8_030_261_248 * 2 + adapters_bytes
    assert found.gradients_bytes == adapters_bytes
    assert found.optimizer_state_bytes == 2 * adapters_bytes
    assert found.lower_bound_bytes < 20 * 10**9


@pytest.mark.parametrize(
    ("toggle", "weights", "gradients", "state", "buckets"),
    [
        ("ddp:ranks=4", 4, 4, 8, 4),
        ("ddp:ranks=4,bucket_view=true", 4, 4, 8, 0),
        ("zero1:ranks=4", 4, 4, 2, 4),
        ("fsdp2:ranks=4", 1, 1, 2, 0),
    ],
)
def test_a_rank_holds_its_share_and_the_buckets_of_ddp(toggle: str, weights: int, gradients: int, state: int, buckets: int) -> None:
    found = estimate("gpt2", toggle, num_parameters=1_000_000, batch=4, seq=128)
    held = [found.weights_bytes, found.gradients_bytes, found.optimizer_state_bytes, found.buckets_bytes]

    assert held == [size * 1_000_000 for size in (weights, gradients, state, buckets)]
    assert found.lower_bound_bytes == sum(held) + found.logits_bytes

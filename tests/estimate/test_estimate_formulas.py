"""Closed forms against numbers computed by hand and printed by their sources."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import SpecError
from profiler.estimate.activations import Recompute, logits_bytes, megatron_layer_bytes
from profiler.estimate.blocks import Block, block_of
from profiler.estimate.kv_cache import kv_bytes_per_token, static_cache_bytes
from profiler.estimate.lora import adapter_num_parameters, lora_num_parameters, lora_states_bytes
from profiler.estimate.optimizer_state import STATE_SIZES, adafactor_state_bytes, optimizer_state_bytes
from profiler.estimate.others import (
    accelerate_training_bytes,
    deepspeed_zero2_bytes,
    deepspeed_zero3_bytes,
    eleuther_activation_bytes,
    eleuther_cache_bytes,
    eleuther_num_parameters,
    megatron_activation_bytes,
    megatron_bytes_per_parameter,
)
from profiler.estimate.quantization import FORMATS, quantized_bytes, quantized_linear_bytes
from profiler.estimate.zero import zero_states_bytes
from profiler.models.catalogue import entry
from profiler.units import GIB


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120), (1, 31.40625), (2, 16.640625), (3, 1.875)])
def test_zero_gives_the_papers_gigabytes_for_7_5_billion_parameters_on_64_ranks(stage: int, gigabytes: float) -> None:
    assert zero_states_bytes(7_500_000_000, stage=stage, num_ranks=64) == gigabytes * 10**9


@given(parameters=st.integers(1, 10**12), ranks=st.integers(1, 4096))
def test_each_zero_stage_needs_no_more_than_the_one_before(parameters: int, ranks: int) -> None:
    sizes = [zero_states_bytes(parameters, stage=stage, num_ranks=ranks) for stage in range(4)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 16 * parameters <= ranks * sizes[3]


def test_a_zero_stage_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SpecError, match="stage 4 does not exist. Use 0, 1, 2 or 3"):
        zero_states_bytes(1, stage=4, num_ranks=1)
    with pytest.raises(SpecError, match="num_ranks=0"):
        zero_states_bytes(1, stage=1, num_ranks=0)


def test_deepspeeds_estimators_print_what_its_documentation_shows() -> None:
    t5_3b, largest = 2_851_598_336, 32_899_072
    assert round(deepspeed_zero2_bytes(t5_3b, 8) / GIB, 2) == 15.93
    assert round(deepspeed_zero2_bytes(t5_3b, 8, offload=True) / GIB, 2) == 5.31
    assert round(deepspeed_zero3_bytes(t5_3b, largest, 8) / GIB, 2) == 6.10
    assert round(deepspeed_zero3_bytes(t5_3b, largest, 8, offload_optimizer=True) / GIB, 2) == 0.79
    assert deepspeed_zero3_bytes(t5_3b, largest, 8, offload_optimizer=True, offload_parameters=True) == 4 * largest


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({}, 34 + 80),
        ({"tensor_parallel": 8}, 10 + 24 / 8 + 80 / 8),
        ({"tensor_parallel": 8, "sequence_parallel": True}, (34 + 80) / 8),
        ({"tensor_parallel": 8, "recompute": Recompute.SELECTIVE}, 10 + 24 / 8),
        ({"tensor_parallel": 8, "sequence_parallel": True, "recompute": Recompute.SELECTIVE}, 34 / 8),
        ({"tensor_parallel": 8, "recompute": Recompute.FULL}, 2),
    ],
)
def test_a_layer_of_gpt_3_keeps_what_table_2_says(options: dict[str, object], factor: float) -> None:
    found = megatron_layer_bytes(seq=2048, batch=1, hidden=12_288, heads=96, **options)  # type: ignore[arg-type]
    assert found == pytest.approx(2048 * 12_288 * factor)


def test_megatron_prints_18_bytes_or_6_and_12_shared() -> None:
    assert megatron_bytes_per_parameter() == 18
    assert megatron_bytes_per_parameter(8) == 7.5
    gpt = Block(hidden=1024, query=1024, key_value=1024, num_heads=16, inner=4096, num_experts=1, gated=False)
    by_hand = 24 * 2048 * 1024 * 34 + 8 * 2048 + 2048 * 1024 + 4 * 2048 * (1024 + 50_304)
    assert megatron_activation_bytes(gpt, num_layers=24, batch=1, seq=2048, vocab_size=50_304) == by_hand
    assert megatron_activation_bytes(gpt, num_layers=24, batch=1, seq=2048, vocab_size=50_304, tensor_parallel=2) == by_hand // 2


@pytest.mark.parametrize(
    ("layers", "hidden", "vocab", "batch", "seq", "inner", "heads", "checkpointing", "printed_gib"),
    [
        (8, 512, 8192, 2, 256, 2.69 * 512, 8, False, 0.74),
        (8, 512, 8192, 2, 256, 2.69 * 512, 8, True, 0.70),
        (12, 768, 32_000, 4, 512, 2.6667 * 768, 12, False, 3.81),
    ],
)
def test_the_cookbook_prints_what_its_script_printed(
    layers: int, hidden: int, vocab: int, batch: int, seq: int, inner: float, heads: int, checkpointing: bool, printed_gib: float
) -> None:
    block = Block(hidden=hidden, query=hidden, key_value=hidden, num_heads=heads, inner=int(inner), num_experts=1, gated=True)
    parameters = eleuther_num_parameters(block, num_layers=layers, vocab_size=vocab, seq=seq)
    activations = eleuther_activation_bytes(block, num_layers=layers, batch=batch, seq=seq, checkpointing=checkpointing)
    assert round((parameters * (4 + 4 + 12) + activations) / GIB, 2) == printed_gib


def test_the_cookbooks_cache_is_half_of_the_real_one() -> None:
    facts = entry("llama-2-7b").facts
    real = kv_bytes_per_token(32, 32, 128, 2) * 1000
    assert 2 * eleuther_cache_bytes(block_of(facts), num_layers=32, batch=1, tokens=1000) == real == 524_288_000


def test_accelerate_says_four_times_the_weights() -> None:
    assert accelerate_training_bytes(433_249_280) / GIB == pytest.approx(1.61, abs=0.005)


@pytest.mark.parametrize(
    ("name", "num_bytes"),
    [("llama-2-13b", 819_200 * 4096), ("llama-3-8b", 131_072 * 4096), ("mistral-7b", 131_072 * 4096), ("bert-base", 0)],
)
def test_a_static_cache_is_there_from_the_beginning(name: str, num_bytes: int) -> None:
    assert static_cache_bytes(entry(name).facts, batch=1, max_tokens=4096, itemsize=2) == num_bytes


def test_a_static_cache_of_a_sliding_window_is_no_longer_than_the_window() -> None:
    facts = entry("mistral-7b").facts
    assert facts.sliding_window == 4096
    assert static_cache_bytes(facts, batch=2, max_tokens=32_768, itemsize=2) == 131_072 * 4096 * 2


def test_lora_of_gpt_3_has_the_papers_parameters() -> None:
    queries_and_values = [(12_288, 12_288)] * 2 * 96
    assert lora_num_parameters(queries_and_values, rank=1) == 4_718_592
    assert lora_num_parameters(queries_and_values, rank=4) == 18_874_368
    assert lora_num_parameters([(512, 512)], rank=8) * 4 + 512 * 512 * 4 == 1_081_344


def test_adapters_know_the_shapes_of_grouped_queries() -> None:
    facts = entry("llama-3.2-3b").facts
    assert adapter_num_parameters(facts, rank=32) == 28 * 32 * ((3072 + 3072) + (3072 + 1024)) == 9_175_040
    mlp = adapter_num_parameters(facts, rank=10, targets=("gate_proj", "up_proj", "down_proj"))
    assert mlp == 28 * 10 * 3 * (3072 + 8192)
    assert lora_states_bytes(9_175_040) == 16 * 9_175_040


@pytest.mark.parametrize("name", ["llama-3-8b", "llama-3.2-1b", "qwen2.5-7b", "mistral-7b", "gpt2", "bert-base"])
def test_the_linear_layers_are_nearly_all_of_a_models_blocks(name: str) -> None:
    model = entry(name)
    linears = model.facts.num_layers * sum(inputs * outputs for inputs, outputs in block_of(model.facts).linears.values())
    embeddings = model.facts.vocab_size * model.facts.hidden_size * (2 if model.config.get("tie_word_embeddings") is False else 1)
    assert linears + embeddings == pytest.approx(model.num_parameters, rel=0.02)


@pytest.mark.parametrize("name", ["t5-small", "lstm"])
def test_what_is_no_stack_of_blocks_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="is not a stack of equal transformer blocks"):
        block_of(entry(name).facts)


@pytest.mark.parametrize(
    ("weight_format", "bytes_per_weight"),
    [
        ("float32", 4),
        ("bfloat16", 2),
        ("int8", 1),
        ("fp6", 0.75),
        ("int4, groups of 64", 0.5625),
        ("int4, groups of 64, 2:4 sparse", 0.40625),
        ("nf4", 0.5625),
        ("Q4_0", 18 / 32),
        ("Q8_0", 34 / 32),
        ("Q6_K", 210 / 256),
        ("Q5_K", 176 / 256),
        ("Q4_K", 144 / 256),
        ("Q3_K", 110 / 256),
        ("Q2_K", 84 / 256),
    ],
)
def test_a_weight_takes_the_bytes_of_its_block(weight_format: str, bytes_per_weight: float) -> None:
    assert FORMATS[weight_format].bits_per_weight / 8 == bytes_per_weight
    assert quantized_bytes(16_384, weight_format) == 16_384 * bytes_per_weight


def test_double_quantization_saves_0_373_bits() -> None:
    saved = FORMATS["nf4"].bits_per_weight - FORMATS["nf4, double quantized"].bits_per_weight
    assert round(saved, 3) == 0.373
    assert round(FORMATS["nf4, double quantized"].bits_per_weight / 8, 4) == 0.5159


def test_a_quantized_layer_is_padded_and_has_a_scale_a_row() -> None:
    assert quantized_linear_bytes(11_008, 4096, "int4, groups of 64") == 11_264 * 4096 * 9 // 16
    assert quantized_linear_bytes(4096, 4096, "int8") == 4096 * 4096 + (4 + 1) * 4096


def test_optimizer_state_a_parameter() -> None:
    sizes = {name: size.bytes_per_parameter for name, size in STATE_SIZES.items()}
    assert sizes["adam, float32"] == 8
    assert sizes["adam, bfloat16"] == 4
    assert sizes["adam, 8-bit"] == 2.03125
    assert sizes["adam, 4-bit"] == 1.0625
    assert optimizer_state_bytes(1_000_000, "adam, 8-bit") == 2_031_250


def test_adafactor_keeps_rows_and_columns_of_matrices_and_all_of_vectors() -> None:
    assert adafactor_state_bytes([(1000, 50)]) == 4 * 1050
    assert adafactor_state_bytes([(768,), ()]) == 4 * 769
    assert adafactor_state_bytes([(8, 1000, 50)], itemsize=2) == 2 * 8 * 1050


def test_logits_are_tokens_times_vocabulary() -> None:
    assert logits_bytes(1024, 50_257, 4) == 205_852_672

"""What a configuration must say, and what it cannot."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import SpecError
from profiler.models.catalogue import CATALOGUE, entry
from profiler.models.config import Head, check_workload, head_of, read_facts
from profiler.spec import Workload, WorkloadKind

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "intermediate_size": 2048,
    "max_position_embeddings": 256,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 10}, "num_attention_heads=10 does not divide hidden_size=768. Choose a divisor such as 8 or 12."),
        ({"num_key_value_heads": 5}, "num_key_value_heads=5 does not divide num_attention_heads=12. Choose a divisor such as 4 or 6."),
        ({"hidden_size": -768}, "The model's configuration has hidden_size=-768. Use a whole number from 1 to 1,048,576."),
        ({"hidden_size": "768"}, "The model's configuration has hidden_size='768'. Use a whole number from 1 to 1,048,576."),
        ({"num_hidden_layers": 10**9}, "The model's configuration has num_hidden_layers=1000000000. Use a whole number from 1 to 2,048."),
        ({"vocab_size": True}, "The model's configuration has vocab_size=True. Use a whole number from 1 to 16,777,216."),
        (
            {"hidden_size": None, "vocab_size": None},
            "The model's configuration (llama) has no vocab_size, hidden_size. Add what is missing",
        ),
        ({"num_attention_heads": None}, "The model's configuration (llama) has no num_attention_heads. Add what is missing"),
        ({"model_type": None}, "The model's configuration has no model_type."),
        ({"hidden_size": None, "text_config": {}}, "holds more than a language model. Save its text_config as a config.json of its own"),
    ],
)
def test_an_impossible_configuration_is_refused_with_the_way_out(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        read_facts({**LLAMA, **change})


@given(hidden_size=st.integers(2, 5000), num_heads=st.integers(1, 5000))
def test_the_divisors_that_are_offered_are_divisors_on_both_sides(hidden_size: int, num_heads: int) -> None:
    config = {**LLAMA, "hidden_size": hidden_size, "num_attention_heads": num_heads, "num_key_value_heads": None}
    if hidden_size % num_heads == 0:
        assert read_facts(config).head_dim == hidden_size // num_heads
        return
    with pytest.raises(SpecError) as refusal:
        read_facts(config)
    offered = [int(number) for number in re.findall(r"such as (\d+) or (\d+)\.", str(refusal.value))[0]]
    assert all(hidden_size % divisor == 0 for divisor in offered)
    if num_heads < hidden_size:
        assert offered[0] < num_heads < offered[1]


def test_heads_need_not_divide_where_their_size_is_given() -> None:
    facts = read_facts({**LLAMA, "hidden_size": 770, "head_dim": 64})
    assert (facts.num_heads, facts.head_dim) == (12, 64)


@pytest.mark.parametrize(
    ("config", "head"),
    [
        ({"model_type": "gpt2"}, Head.CAUSAL_LM),
        ({"model_type": "bert"}, Head.MASKED_LM),
        ({"model_type": "bert", "is_decoder": True}, Head.CAUSAL_LM),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, Head.MASKED_LM),
        ({"model_type": "anything", "architectures": ["AnythingForMaskedLM"]}, Head.MASKED_LM),
        ({"model_type": "roberta", "architectures": ["RobertaForCausalLM"]}, Head.CAUSAL_LM),
        ({"model_type": "bart"}, Head.SEQ2SEQ),
        ({"model_type": "anything", "is_encoder_decoder": True}, Head.SEQ2SEQ),
        ({"model_type": "gru"}, Head.RECURRENT),
    ],
)
def test_the_head_follows_from_the_configuration(config: dict[str, Any], head: Head) -> None:
    assert head_of(config) is head


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_family_spells_its_sizes_in_a_way_that_is_read(name: str) -> None:
    facts = entry(name).facts
    assert facts.hidden_size > 0
    if facts.head is not Head.RECURRENT:
        assert facts.num_heads is not None
        assert facts.head_dim is not None


def test_a_sliding_window_that_is_switched_off_is_none() -> None:
    assert read_facts({**LLAMA, "sliding_window": 128}).sliding_window == 128
    assert read_facts({**LLAMA, "sliding_window": 128, "use_sliding_window": False}).sliding_window is None


def test_a_sequence_longer_than_the_positions_is_refused_naming_both() -> None:
    message = r"^seq=1,025; gpt2 has 1,024 positions\. Choose"
    with pytest.raises(SpecError, match=message):
        check_workload(entry("gpt2").facts, Workload(seq=1025), "gpt2")
    check_workload(entry("gpt2").facts, Workload(seq=1024), "gpt2")


def test_new_tokens_take_positions_too() -> None:
    workload = Workload(kind=WorkloadKind.DECODE, seq=1000, new_tokens=25)
    with pytest.raises(SpecError, match=r"^seq=1000 and new_tokens=25 make 1,025 tokens; gpt2 has 1,024 positions\."):
        check_workload(entry("gpt2").facts, workload, "gpt2")
    check_workload(entry("gpt2").facts, Workload(kind=WorkloadKind.DECODE, seq=1000, new_tokens=24), "gpt2")


@pytest.mark.parametrize("name", ["t5-small", "lstm"])
def test_relative_positions_and_recurrence_set_no_limit(name: str) -> None:
    check_workload(entry(name).facts, Workload(seq=100_000), name)


def test_an_encoder_refuses_to_decode() -> None:
    with pytest.raises(SpecError, match="bert-base is an encoder: it cannot decode"):
        check_workload(entry("bert-base").facts, Workload(kind=WorkloadKind.DECODE), "bert-base")

"""Fewer numbers by the configuration or by the layers: counted by hand, said where nothing changes, refused where it cannot be."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

from profiler.errors import SpecError
from profiler.models.build import build_model, inspect_model
from profiler.optimizations.registry import setup_for, validate
from profiler.spec import Job, Model, Toggle, Workload

WIDTH, HEAD, INNER, LAYERS, VOCABULARY = 256, 32, 768, 4, 4096
"""Of tiny-llama, which has 8 heads and 2 of keys and values."""
NUM_PARAMETERS = 5_114_112


def job(*toggles: str, model: Model | str = "tiny-llama", **workload: Any) -> Job:
    model = Model(name=model) if isinstance(model, str) else model
    return Job(model=model, workload=Workload(**({"seq": 8} | workload)), toggles=tuple(map(Toggle.parse, toggles)))


def num_parameters(*toggles: str) -> int:
    return inspect_model(validate(job(*toggles)).model).num_parameters


def test_tied_embeddings_are_one_matrix_less() -> None:
    assert NUM_PARAMETERS - num_parameters("tied-embeddings") == VOCABULARY * WIDTH


@pytest.mark.parametrize("kv_heads", [1, 4, 8])
def test_each_head_of_keys_and_values_has_two_projections(kv_heads: int) -> None:
    assert num_parameters(f"grouped-query:kv_heads={kv_heads}") - NUM_PARAMETERS == LAYERS * 2 * WIDTH * HEAD * (kv_heads - 2)


def test_a_configuration_says_it_without_a_toggle() -> None:
    valid = validate(job("tied-embeddings", "gqa:kv_heads=4"))
    assert [str(toggle) for toggle in valid.toggles] == ["adamw", "float32"]
    assert valid.model.name == "tiny-llama, tied embeddings, kv_heads=4"
    config = json.loads(valid.model.config or "")
    assert (config["tie_word_embeddings"], config["num_key_value_heads"]) == (True, 4)
    assert validate(valid) == valid


@pytest.mark.parametrize(
    ("toggle", "model", "note"),
    [
        ("tied-embeddings", "tiny-gpt2", "0 parameters shared: tiny-gpt2 ties its embeddings already."),
        ("tied-embeddings", "tiny-qwen", "0 parameters shared: tiny-qwen ties its embeddings already."),
        ("gqa:kv_heads=2", "tiny-llama", "0 layers changed: tiny-llama has 2 heads of keys and values already."),
    ],
)
def test_what_is_so_already_is_told_and_the_model_stays(toggle: str, model: str, note: str) -> None:
    wanted = job(toggle, model=model)
    assert setup_for(wanted).notes == [note]
    assert validate(wanted).model == Model(name=model)


def test_a_users_configuration_that_does_not_say_whether_it_ties_is_tied() -> None:
    config = json.loads(validate(job("gqa")).model.config or "")
    del config["tie_word_embeddings"]
    valid = validate(job("tied-embeddings", model=Model.from_config("mine", config)))
    assert json.loads(valid.model.config or "")["tie_word_embeddings"] is True


def test_narrow_layers_have_as_many_numbers_as_the_formula_says() -> None:
    rank, setup = 16, setup_for(job("low-rank:rank=16"))
    model = setup.transforms[0](build_model(Model(name="tiny-llama")))
    square, narrow, wide = rank * 2 * WIDTH, rank * (WIDTH + 2 * HEAD), rank * (WIDTH + INNER)
    whole = 2 * WIDTH**2 + 2 * WIDTH * 2 * HEAD + 3 * WIDTH * INNER
    saved = LAYERS * (whole - 2 * square - 2 * narrow - 3 * wide)
    assert NUM_PARAMETERS - sum(parameter.numel() for parameter in model.parameters()) == saved
    assert setup.notes == []
    assert model(input_ids=torch.arange(2, 10)[None]).logits.isfinite().all()


def test_layers_that_would_not_become_smaller_stay_and_are_told() -> None:
    setup = setup_for(job("low-rank:rank=500"))
    model = setup.transforms[0](build_model(Model(name="tiny-llama")))
    assert sum(parameter.numel() for parameter in model.parameters()) == NUM_PARAMETERS
    assert setup.notes == ["0 of 28 linear layers changed: with rank 500 the others would not be smaller."]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (job("gqa:kv_heads=3"), "num_key_value_heads=3 does not divide num_attention_heads=8. Choose a divisor such as 2 or 4."),
        (job("gqa", model="gpt2"), "gpt2 has keys and values for every head, and cannot have fewer. Choose a model such as tiny-llama."),
        (job("tied-embeddings", model="tiny-lstm"), "the output layer of transformers, and tiny-lstm is recurrent. Choose another model"),
        (job("low-rank", "lora"), "low-rank and lora do not go together: low-rank replaces the linear layers that the other works on."),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(wanted: Job, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        validate(wanted)

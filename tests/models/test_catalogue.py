"""The catalogue against published parameter counts and against the models that are built from it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from transformers import AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from profiler.errors import SpecError
from profiler.models.build import build_model, inspect_model
from profiler.models.catalogue import CATALOGUE, CatalogueEntry, entry, facts_of, is_known
from profiler.models.config import Head
from profiler.spec import Model

# Counted by the models' makers or by loading the published weights.
PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "distilbert": 66_362_880,
    "roberta-base": 124_645_632,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-8b": 8_190_735_360,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
}
TINY = {f"tiny-{name}" for name in ("gpt2", "bert", "distilbert", "roberta", "t5", "llama", "qwen", "mistral", "mixtral", "lstm", "gru")}


def test_it_has_the_models_that_were_promised() -> None:
    assert set(CATALOGUE) == set(PUBLISHED) | {"lstm", "gru"} | TINY
    assert {name for name, item in CATALOGUE.items() if item.tiny} == TINY


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_parameter_count_is_the_published_one(name: str) -> None:
    assert entry(name).num_parameters == PUBLISHED[name]


def test_a_recurrent_count_is_the_one_computed_by_hand() -> None:
    embedding, output = 10_000 * 1500, 10_000 * 1500 + 10_000
    gate_layer = 1500 * 1500 + 1500 * 1500 + 2 * 1500
    assert entry("lstm").num_parameters == embedding + 2 * 4 * gate_layer + output == 66_034_000
    assert entry("gru").num_parameters == embedding + 2 * 3 * gate_layer + output


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_built_model_has_as_many_parameters_as_the_catalogue_says(name: str) -> None:
    assert inspect_model(Model(name=name)).num_parameters == entry(name).num_parameters_with_head


@pytest.mark.parametrize("name", [name for name, item in CATALOGUE.items() if item.head is Head.MASKED_LM])
def test_an_encoders_published_count_is_that_of_the_network_without_its_head(name: str) -> None:
    config = dict(entry(name).config)
    with torch.device("meta"):
        network = AutoModel.from_config(CONFIG_MAPPING[config.pop("model_type")](**config))
    assert sum(parameter.numel() for parameter in network.parameters()) == entry(name).num_parameters


@pytest.mark.parametrize(
    ("name", "positions"),
    [("gpt2", 1024), ("bert-base", 512), ("roberta-base", 512), ("llama-3-8b", 8192), ("t5-small", None), ("lstm", None)],
)
def test_positions_are_those_that_a_sequence_can_use(name: str, positions: int | None) -> None:
    assert entry(name).max_positions == positions


@pytest.mark.parametrize("name", [name for name, item in CATALOGUE.items() if item.max_positions and item.tiny])
def test_the_longest_sequence_of_a_tiny_model_runs(name: str) -> None:
    model = build_model(Model(name=name)).eval()
    tokens = torch.full((1, entry(name).max_positions or 0), 5)
    with torch.inference_mode():
        assert model(input_ids=tokens).logits.shape[1] == tokens.shape[1]


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_tiny_model_has_layers_to_look_at(name: str) -> None:
    facts = entry(name).facts
    assert facts.num_layers >= 2
    assert 1_000_000 < entry(name).num_parameters_with_head < 10_000_000


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"Unknown model 'gpt2-lage'\. Did you mean 'gpt2-large'\?"):
        entry("gpt2-lage")


def test_a_name_may_be_written_in_capitals() -> None:
    assert facts_of(Model(name="GPT2")) == entry("gpt2").facts


def test_reading_it_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, profiler.models.catalogue, profiler.models.user_config, profiler.optimizations.registry, profiler.estimate.states;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("item", CATALOGUE.values(), ids=lambda item: item.name)
def test_a_published_model_is_found_by_its_names_on_the_hub(item: CatalogueEntry) -> None:
    named = re.findall(r"config\.json of (\S+/\S+)", item.source)

    assert bool(item.hub_ids) == bool(named)
    assert [entry(name).family for name in named] == [item.family] * len(named)
    assert all(entry(name) is item and entry(name.lower()) is item for name in item.hub_ids)


def test_no_name_on_the_hub_is_of_two_models_or_a_catalogue_name() -> None:
    names = [hub_id.lower() for item in CATALOGUE.values() for hub_id in item.hub_ids]

    assert len(names) == len(set(names))
    assert not set(names) & CATALOGUE.keys()
    assert not is_known("gpt3")

"""A user's own config.json: what is read, what is refused, and with which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from profiler.errors import SpecError
from profiler.models.catalogue import CATALOGUE, config_of, facts_of
from profiler.models.user_config import MAX_CONFIG_BYTES, model_from_path, model_from_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CATALOGUE["tiny-llama"].config))
    (folder / "model.safetensors").write_bytes(b"never read")
    return folder


def test_a_folder_and_its_file_are_the_same_model_named_after_the_folder(folder: Path) -> None:
    model = model_from_path(folder)
    assert model == model_from_path(folder / "config.json")
    assert model.name == "my-model"
    assert config_of(model) == CATALOGUE["tiny-llama"].config
    assert facts_of(model) == CATALOGUE["tiny-llama"].facts


def test_a_file_of_another_name_gives_its_own_name(folder: Path) -> None:
    other = folder / "small.json"
    other.write_text((folder / "config.json").read_text())
    assert model_from_path(other).name == "small"


def test_a_missing_file_says_what_may_be_given(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nothing cannot be read: No such file or directory\. Give a config\.json, or a folder"):
        model_from_path(tmp_path / "nothing")


def test_a_folder_without_a_configuration_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"config\.json cannot be read: No such file"):
        model_from_path(tmp_path)


def test_weights_given_by_mistake_are_not_read_through(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"\0" * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(SpecError, match="more than 1,000,000 bytes"):
        model_from_path(weights)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "the configuration is not valid JSON"),
        (b"\xff\xfe\x00", "the configuration is not valid JSON"),
        ("[" * 100_000, "the configuration is not valid JSON"),
        ('{"model_type": "llama", "hidden_size": NaN}', "NaN is not a JSON number"),
        ("[1, 2]", "the configuration is not a JSON object"),
        ('{"model_type": "llama"}', r"mine \(llama\) has no vocab_size, hidden_size, num_hidden_layers, num_attention_heads"),
        ("{}", "mine has no model_type"),
    ],
)
def test_content_that_is_no_configuration_is_refused_in_one_sentence(content: str | bytes, message: str) -> None:
    with pytest.raises(SpecError, match=message) as refusal:
        model_from_text(content, "mine")
    assert "\n" not in str(refusal.value)

"""Building models: dtypes, devices, users' configurations, and what a hostile configuration cannot do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from profiler.errors import SpecError
from profiler.models.build import build_model, inspect_model
from profiler.models.catalogue import CATALOGUE, entry
from profiler.spec import Model

TINY = [name for name, item in CATALOGUE.items() if item.tiny]


def changed(name: str, **changes: Any) -> Model:
    config = {**entry(name).config, **changes}
    return Model.from_config("mine", {key: value for key, value in config.items() if value is not None})


@pytest.mark.parametrize("name", TINY)
def test_parameters_have_the_dtype_that_was_asked_for(name: str) -> None:
    model = build_model(Model(name=name), torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() is torch.float32


def test_the_meta_device_takes_no_memory() -> None:
    model = build_model(Model(name="llama-3-8b"), torch.bfloat16, "meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_building_says_nothing_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    for name in TINY:
        build_model(Model(name=name))
    assert capfd.readouterr() == ("", "")


def test_a_users_configuration_is_counted_exactly() -> None:
    facts = inspect_model(changed("tiny-gpt2", n_layer=1, vocab_size=100, n_positions=10, n_embd=8, n_head=2))
    block = 2 * (8 + 8) + (8 * 24 + 24) + (8 * 8 + 8) + (8 * 32 + 32) + (32 * 8 + 8)
    assert facts.num_parameters == 100 * 8 + 10 * 8 + block + (8 + 8)
    assert len(facts.parameter_sizes) == 2 + 12 + 2
    assert sum(facts.parameter_sizes) == facts.num_parameters
    assert {100 * 8, 10 * 8, 8 * 24, 24} <= set(facts.parameter_sizes)
    assert facts.config.num_layers == 1


def test_tied_weights_count_once() -> None:
    tied = inspect_model(changed("tiny-llama", tie_word_embeddings=True)).num_parameters
    untied = inspect_model(changed("tiny-llama", tie_word_embeddings=False)).num_parameters
    assert untied - tied == 4096 * 256


def test_buffers_are_counted_in_bytes() -> None:
    assert inspect_model(Model(name="tiny-bert")).buffers_bytes == 2 * 512 * 8  # position and token type ids, int64


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (changed("tiny-llama", model_type="lama"), r"^Unknown model_type 'lama'\. Did you mean 'llama'\?"),
        (changed("tiny-llama", intermediate_size=None), r"^mine \(llama\) has no intermediate_size\. Add what is missing"),
        (changed("tiny-t5", d_ff=None), r"^mine \(t5\) has no d_ff\."),
        (changed("tiny-llama", hidden_act="tanhh"), r"^mine cannot be built from its configuration: 'tanhh'\."),
        (changed("tiny-llama", rope_parameters={"rope_type": "zzz"}), "^mine cannot be built from its configuration: "),
        (changed("tiny-llama", initializer_range="x"), "^mine cannot be built from its configuration: "),
        (changed("tiny-lstm", dropout=7.0), "^mine cannot be built from its configuration: dropout"),
    ],
)
def test_what_only_the_library_can_judge_is_refused_in_one_sentence(model: Model, message: str) -> None:
    with pytest.raises(SpecError, match=message) as refusal:
        inspect_model(model)
    assert "\n" not in str(refusal.value)


def test_a_configuration_cannot_name_code_to_fetch_or_run() -> None:
    hostile = changed(
        "tiny-llama",
        auto_map={"AutoModelForCausalLM": "somebody/model--modeling.Evil"},
        attn_implementation="kernels-community/attention",
        _attn_implementation="kernels-community/attention",
        experts_implementation="kernels-community/experts",
        quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True},
        torch_dtype="float16",
    )
    model = build_model(hostile)
    assert type(model).__module__.startswith("transformers.models.llama")
    assert model.config._attn_implementation == "sdpa"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["tiny-lstm", "tiny-gru"])
def test_a_recurrent_model_continues_from_its_state_as_if_it_had_read_everything(name: str) -> None:
    model = build_model(Model(name=name)).eval()
    tokens = torch.randint(2, 4096, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = model(input_ids=tokens)
        start = model(input_ids=tokens[:, :6], use_cache=True)
        rest = model(input_ids=tokens[:, 6:], past_key_values=start.past_key_values)
    assert whole.past_key_values is None
    torch.testing.assert_close(torch.cat([start.logits, rest.logits], 1), whole.logits)


def test_a_recurrent_loss_is_the_mean_surprise_at_the_next_token() -> None:
    model = build_model(Model(name="tiny-lstm")).eval()
    tokens = torch.randint(2, 4096, (2, 5), generator=torch.Generator().manual_seed(1))
    output = model(input_ids=tokens, labels=tokens)
    surprise = -torch.log_softmax(output.logits[:, :-1], -1).gather(-1, tokens[:, 1:, None])
    torch.testing.assert_close(output.loss, surprise.mean())
    assert model.get_output_embeddings().out_features == model.get_input_embeddings().num_embeddings == 4096

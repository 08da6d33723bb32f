"""Ways to train less than the whole model: what is trained, counted by hand; what is frozen; what is kept beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from profiler.analysis.timeline import Timeline
from profiler.errors import SpecError
from profiler.estimate.states import estimate_states
from profiler.models.build import build_model
from profiler.optimizations.bottleneck_layers import Bottleneck, add_bottlenecks
from profiler.optimizations.registry import setup_for, validate
from profiler.planner.validation import measure_and_simulate
from profiler.spec import Job, Model, Toggle, Workload

WIDTH, KEYS, INNER, LAYERS, VOCABULARY = 256, 64, 768, 4, 4096
"""Of tiny-llama: of hidden states, of keys and of values, inside the feed-forward."""


def job(*toggles: str, model: str = "tiny-llama", **workload: Any) -> Job:
    shape = {"batch": 2, "seq": 8, "steps": 1} | workload
    return Job(model=Model(name=model), workload=Workload(**shape), toggles=tuple(map(Toggle.parse, toggles)))


def built(*toggles: str, model: str = "tiny-llama") -> tuple[nn.Module, list[str]]:
    """Return the model as these toggles change it, and what they note."""
    setup = setup_for(job(*toggles, model=model))
    changed = build_model(Model(name=model), setup.dtype)
    if setup.load is not None:
        changed = setup.load(changed, torch.device("cpu"))
    for transform in setup.transforms:
        changed = transform(changed)
    return changed, setup.notes


def num_trained(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


ATTENTION_ENDS = 2 * (WIDTH + WIDTH) + 2 * (WIDTH + KEYS)
"""Inputs and outputs of a layer's queries, output, keys and values."""


@pytest.mark.parametrize(
    ("toggle", "by_hand"),
    [
        ("lora:rank=5", LAYERS * 5 * ATTENTION_ENDS),
        ("lora:rank=5,targets=query-value", LAYERS * 5 * (2 * WIDTH + WIDTH + KEYS)),
        ("lora:rank=5,targets=all-linear", LAYERS * 5 * (ATTENTION_ENDS + 3 * (WIDTH + INNER))),
        ("qlora:rank=5,targets=all-linear", LAYERS * 5 * (ATTENTION_ENDS + 3 * (WIDTH + INNER))),
        ("adalora:rank=6", LAYERS * 6 * (ATTENTION_ENDS + 4)),
        ("ia3", LAYERS * (KEYS + KEYS + INNER)),
        ("bottleneck-adapters:width=8", LAYERS * 2 * (2 * WIDTH * 8 + WIDTH + 8)),
        ("freeze:trainable_layers=0", WIDTH + WIDTH * VOCABULARY),
        (
            "freeze:trainable_layers=3",
            3 * (2 * WIDTH * WIDTH + 2 * WIDTH * KEYS + 3 * WIDTH * INNER + 2 * WIDTH) + WIDTH + WIDTH * VOCABULARY,
        ),
    ],
)
def test_what_is_trained_is_what_the_formula_says(toggle: str, by_hand: int) -> None:
    model, notes = built(toggle)
    assert num_trained(model) == by_hand
    assert notes == []


@pytest.mark.parametrize("toggle", ["lora", "adalora", "ia3", "bottleneck-adapters"])
def test_a_model_with_new_adapters_says_what_it_said_without(toggle: str) -> None:
    ids = torch.arange(2, 10)[None]
    torch.manual_seed(0)
    plain = build_model(Model(name="tiny-llama"))
    torch.manual_seed(0)
    changed, _ = built(toggle)
    torch.testing.assert_close(changed(input_ids=ids).logits, plain(input_ids=ids).logits)


@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-bert", "tiny-roberta", "tiny-distilbert", "tiny-t5", "tiny-qwen", "tiny-mistral"])
def test_every_family_gets_two_bottlenecks_a_layer(model: str) -> None:
    changed, _ = built("bottleneck-adapters", model=model)
    found = [name for name, module in changed.named_modules() if isinstance(module, Bottleneck)]
    num_layers = {"tiny-distilbert": 3, "tiny-t5": 4}.get(model, 4)
    num_of_cross_attention = 2 * (model == "tiny-t5")
    assert len(found) == 2 * num_layers + num_of_cross_attention, found
    assert all(name.rpartition(".")[0].endswith(("down", "up")) for name in _trained_names(changed))


def _trained_names(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_freezing_ends_backward_where_the_first_trained_layer_begins() -> None:
    model, _ = built("freeze:trainable_layers=1")
    kept: list[str] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(str(tuple(tensor.shape))) or tensor, lambda tensor: tensor):
        model(input_ids=torch.arange(2, 10)[None])
    inner = [shape for shape in kept if shape.endswith(f" {INNER})") and shape.startswith("(1,")]
    assert 0 < len(inner) <= 4  # of the one layer's feed-forward


def test_a_shared_output_layer_and_layers_that_are_not_frozen_are_told() -> None:
    assert built("freeze", model="tiny-gpt2")[1] == [
        "The output layer shares its weight with the embeddings, so backward still runs through every layer."
    ]
    assert built("freeze:trainable_layers=9")[1] == [
        "0 layers frozen: the model has 4, and all are trained. Only what comes before them is frozen."
    ]


def test_adalora_keeps_three_scores_beside_two_moments(tmp_path: Path) -> None:
    _, simulated = measure_and_simulate(job("adalora:rank=6"), "cpu", tmp_path)
    events = simulated.events.to_pylist()
    state: dict[str, int] = {}
    for event in events:
        name = event["tensor"] or ""
        if event["action"] == "alloc" and name.rpartition(".")[2] in ("exp_avg", "exp_avg_sq", "ipt", "exp_avg_ipt", "exp_avg_unc"):
            state[name] = event["requested_bytes"]
    assert sum(state.values()) == 5 * 4 * LAYERS * 6 * (ATTENTION_ENDS + 4)


def test_the_least_that_a_run_needs_is_no_more_than_it_does_need(tmp_path: Path) -> None:
    full = estimate_states(5_114_112, validate(job())).lower_bound_bytes
    for toggle in ("freeze", "ia3", "qlora"):
        measured, _ = measure_and_simulate(job(toggle), "cpu", tmp_path / toggle)
        peak = Timeline.of(measured).peak_bytes
        assert 0 < estimate_states(5_114_112, validate(job(toggle))).lower_bound_bytes < peak < full + 8 * 2**20


@pytest.mark.parametrize(
    ("toggles", "model", "message"),
    [
        (("ia3",), "tiny-lstm", "ia3 applies to what is trained of the layers of transformers, and tiny-lstm is recurrent."),
        (("freeze", "lora"), "tiny-llama", "are both switched on, but a run has one fine-tuning method. Switch one off."),
        (
            ("qlora", "amp"),
            "tiny-llama",
            "qlora and amp do not go together: qlora computes in the number format that the model is built in",
        ),
        (("qlora", "bf16-master"), "tiny-llama", "and the other in two. Use bfloat16 as the precision, or switch one of them off."),
        (("adalora", "optimizer-in-bwd"), "tiny-llama", "adalora scores all gradients after the step"),
        (("adalora:rank=1",), "tiny-llama", "rank=1 is not possible. Use a whole number from 2 to 4096."),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(toggles: tuple[str, ...], model: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        validate(job(*toggles, model=model))


def test_a_model_whose_layers_nobody_knows_is_refused_where_it_is_built() -> None:
    with pytest.raises(SpecError, match=r"Sequential names its sublayers in no known way.*Use lora:targets=all-linear"):
        add_bottlenecks(nn.Sequential(nn.Linear(4, 4)), 2)

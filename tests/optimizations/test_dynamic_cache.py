"""The cache that grows is the family's default said by name: the same job as without a word, and the way back from another cache."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import DynamicCache

from profiler.errors import SpecError
from profiler.models.build import build_model
from profiler.optimizations.registry import setup_for, switch_on, validate
from profiler.spec import Job, Model, Toggle, Workload

DYNAMIC = Toggle("dynamic-cache")


def job(*toggles: str, model: str = "tiny-llama", kind: str = "decode") -> Job:
    workload = Workload(kind=kind, batch=2, seq=16, new_tokens=3, steps=1)  # type: ignore[arg-type]
    return Job(model=Model(name=model), workload=workload, toggles=tuple(map(Toggle.parse, toggles)))


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-gpt2", "tiny-t5"])
@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_it_is_the_job_without_it(model: str, kind: str) -> None:
    plain = validate(job(model=model, kind=kind))
    named = validate(job("dynamic-kv-cache", model=model, kind=kind))
    assert [str(toggle) for toggle in plain.toggles] == ["float32"]
    assert (named, named.id) == (plain, plain.id)
    assert setup_for(named).make_cache is None


@pytest.mark.parametrize("other", ["static-cache", "quantized-cache:format=int8"])
def test_it_takes_the_place_of_another_cache(other: str) -> None:
    baseline = validate(job(other, "bfloat16"))
    assert Toggle.parse(other) in baseline.toggles
    assert switch_on(baseline, (DYNAMIC,)) == validate(job("bfloat16"))


def test_what_the_library_makes_by_itself_is_this_cache() -> None:
    model = build_model(Model(name="tiny-llama")).eval()
    with torch.inference_mode():
        made = model(torch.ones((1, 4), dtype=torch.int64), use_cache=True).past_key_values
    assert type(made) is DynamicCache


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (job("dynamic-cache", "static-cache"), "dynamic-cache and static-cache are both switched on, but a run has one key-value cache."),
        (
            job("dynamic-cache", model="tiny-bert", kind="prefill"),
            "keys and values of causal-lm or seq2seq models, and tiny-bert is masked-lm.",
        ),
        (
            job("dynamic-cache", model="tiny-lstm", kind="prefill"),
            "keys and values of causal-lm or seq2seq models, and tiny-lstm is recurrent.",
        ),
        (job("dynamic-cache", kind="train"), "dynamic-cache has no effect in train"),
    ],
)
def test_where_there_is_nothing_to_choose_it_is_refused(wanted: Job, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        validate(wanted)

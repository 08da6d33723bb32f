"""The sample recordings are what their README says, and carry nothing of the machine they were made on."""

from __future__ import annotations

import json
import platform
import re
import zipfile
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.analysis.categories import CATEGORIES
from profiler.analysis.fit import Fit, judge_fit
from profiler.analysis.summary import summarize
from profiler.analysis.timeline import Timeline
from profiler.devices import GPUS
from profiler.models.catalogue import CATALOGUE
from profiler.optimizations.registry import validate
from profiler.recording import Category, Phase, Recording
from profiler.spec import Job, Model, Workload
from profiler.storage import SUFFIX, read_recording
from profiler.units import GIB, MIB, exact_bytes, format_bytes
from sample_traces import make
from sample_traces.recipes import RECIPES, Recipe
from tests.builders import small_training

FILES = sorted(make.FOLDER.glob(f"*{SUFFIX}"))
NAMES = [recipe.name for recipe in RECIPES]
BY_NAME = pytest.mark.parametrize("name", NAMES)
STATE_BYTES_A_STEP_COUNTER = 4
"""Adam keeps a float32 count of its steps for each parameter tensor."""


@cache
def timeline(name: str) -> Timeline:
    return Timeline.of(recording(name))


@cache
def recording(name: str) -> Recording:
    return read_recording(make.FOLDER / f"{name}{SUFFIX}")


@cache
def summary(name: str) -> dict[str, Any]:
    return summarize(recording(name), timeline(name))


def at_peak(name: str, category: Category) -> int:
    return int(summary(name)["categories_at_peak"].get(category.name, 0))


def num_parameters(name: str) -> int:
    entry = CATALOGUE[recipe(name).job.model.name]
    return entry.num_parameters_with_head or entry.num_parameters


def recipe(name: str) -> Recipe:
    return next(recipe for recipe in RECIPES if recipe.name == name)


@cache
def sections() -> dict[str, str]:
    """Return the README's sections by the file that each names."""
    texts = make.README.read_text(encoding="utf-8").split("\n## ")[1:]
    return {match[1]: text for text in texts if (match := re.search(rf"`([^`]+){SUFFIX}`", text))}


def test_there_is_one_file_a_recipe_and_none_beside() -> None:
    assert [path.name.removesuffix(SUFFIX) for path in FILES] == sorted(NAMES)
    assert len(FILES) >= 6


def test_all_samples_together_are_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < 5 * MIB


def test_the_readme_is_what_make_writes_for_these_recordings() -> None:
    assert make.README.read_text(encoding="utf-8") == make.render_readme({name: summary(name) for name in NAMES})


@BY_NAME
def test_the_readme_quotes_the_sample_s_peak(name: str) -> None:
    peak_bytes = int(timeline(name).total[timeline(name).blocks.event_step >= 1].max())

    assert f"peak {format_bytes(peak_bytes)} ({exact_bytes(peak_bytes)})" in sections()[name]


@BY_NAME
def test_the_readme_s_job_is_the_sample_s_job(name: str) -> None:
    block = re.search(r"```json\n(.+?)\n```", sections()[name], re.DOTALL)
    assert block

    job = validate(Job.from_json(json.loads(block[1])))

    assert job.to_json() == recording(name).metadata.job
    assert job == validate(recipe(name).job)


@BY_NAME
def test_a_sample_is_complete_and_says_how_it_was_made_and_is_titled_in_words(name: str) -> None:
    metadata = recording(name).metadata
    provenance = "measured" if recipe(name).job.device == "cpu" else "simulated"

    assert metadata.complete
    assert (str(metadata.provenance), metadata.title) == (provenance, recipe(name).title)
    assert not re.search(r"[_·/]", metadata.title)


@BY_NAME
def test_a_sample_attributes_its_peak(name: str) -> None:
    assert at_peak(name, Category.UNKNOWN) < 0.01 * summary(name)["peak_allocated_bytes"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_sample_names_neither_a_host_nor_a_path(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        manifest = archive.read("manifest.json").decode()
    sample = read_recording(path)
    columns = (table.column(c) for table in (sample.events, sample.operators, sample.stacks, sample.marks) for c in table.column_names)
    texts = {str(value) for column in columns if "string" in str(column.type) for value in column.unique().to_pylist()}

    private = re.compile(rf"\b{re.escape(platform.node())}\b|(/|\\\\)(home|root|tmp|usr|Users|work)\b")
    found = [text for text in chain(texts, [manifest]) if private.search(text)]

    assert not found
    assert set(sample.metadata.host) == ({"cpu", "num_cores", "python"} if str(sample.metadata.provenance) == "measured" else set())
    assert sample.metadata.key is None


def test_publishing_takes_the_host_and_the_key_out() -> None:
    made = small_training()
    private = {"platform": "Linux-6.1-of-mine", "cpu": "A processor", "available_bytes": 1}
    metadata = type(made.metadata).from_json({**made.metadata.to_json(), "host": private, "key": "0123"})

    published = make.publishable(type(made)(metadata=metadata, events=made.events), RECIPES[0])

    assert published.metadata.host == {"cpu": "A processor"}
    assert (published.metadata.key, published.metadata.title) == (None, RECIPES[0].title)
    assert published.events is made.events


def test_a_job_in_short_reads_back_as_itself() -> None:
    for job in (recipe.job for recipe in RECIPES):
        assert Job.from_json(json.loads(json.dumps(make.short_json(job)))) == job


@pytest.mark.slow
def test_make_runs_a_recipe_and_writes_its_file_and_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(model=Model(name="tiny-lstm"), workload=Workload(batch=2, seq=8, steps=1))
    monkeypatch.setattr(make, "FOLDER", tmp_path)
    monkeypatch.setattr(make, "README", tmp_path / "README.md")
    monkeypatch.setattr(make, "RECIPES", (Recipe(name="one", title="One of mine", job=job, notice="It holds {parameter}."),))

    make.main()

    made = read_recording(tmp_path / "one.headroom")
    assert (made.metadata.title, made.metadata.job) == ("One of mine", validate(job).to_json())
    assert "It holds 12.0 MiB." in (tmp_path / "README.md").read_text(encoding="utf-8")


# What the texts tell, by a hand count.


@BY_NAME
def test_parameters_are_four_bytes_each(name: str) -> None:
    # tiny Llama counts its weights in inference, where the output layer is part of it; all of these models compute in float32
    assert at_peak(name, Category.PARAMETER) == 4 * num_parameters(name)


@pytest.mark.parametrize(
    ("name", "state_bytes"),
    [
        ("1-gpt2-training", 8),
        ("2-bert-training", 8),
        ("4-lstm-training", 8),
        ("5-plain-sgd", 0),
        ("6-sgd-with-momentum", 4),
        ("7-adamw", 8),
    ],
)
def test_the_optimizer_keeps_its_bytes_a_parameter(name: str, state_bytes: int) -> None:
    rest = at_peak(name, Category.OPTIMIZER_STATE) - state_bytes * num_parameters(name)

    counters = rest // STATE_BYTES_A_STEP_COUNTER
    assert rest % STATE_BYTES_A_STEP_COUNTER == 0
    assert (0 < counters < 300) if state_bytes == 8 else counters == 0


def test_the_optimizer_alone_explains_the_difference_between_the_optimizers() -> None:
    plain, momentum, adamw = ("5-plain-sgd", "6-sgd-with-momentum", "7-adamw")
    without = {name: summary(name)["peak_allocated_bytes"] - at_peak(name, Category.OPTIMIZER_STATE) for name in (plain, momentum, adamw)}

    assert len(set(without.values())) == 1
    assert len({at_peak(name, Category.ACTIVATION) for name in without}) == 1
    assert summary(plain)["final_allocated_bytes"] == at_peak(plain, Category.PARAMETER) + at_peak(plain, Category.INPUT)


@pytest.mark.parametrize(("name", "num_tokens", "num_words"), [("1-gpt2-training", 1024, 50257), ("2-bert-training", 1024, 30522)])
def test_logits_are_held_twice_and_so_are_their_gradients(name: str, num_tokens: int, num_words: int) -> None:
    twice = 2 * num_tokens * num_words * 4

    assert twice <= at_peak(name, Category.LOGITS) < twice + 64  # and the loss
    assert twice <= at_peak(name, Category.ACTIVATION_GRADIENT) < twice + 64
    assert summary(name)["peak_at"]["phase"] == "backward"


def test_a_fifth_of_gpt2_s_peak_is_the_output_layer_and_its_first_step_is_lower() -> None:
    name = "1-gpt2-training"
    step = timeline(name).blocks.event_step
    output_layer = at_peak(name, Category.LOGITS) + at_peak(name, Category.ACTIVATION_GRADIENT)

    assert 0.2 < output_layer / summary(name)["peak_allocated_bytes"] < 0.22
    assert timeline(name).total[step == 0].max() < timeline(name).total[step == 1].max() == timeline(name).total[step == 2].max()


@pytest.mark.parametrize(("name", "shape", "each_layer"), [("1-gpt2-training", "4x256x3072", 5), ("2-bert-training", "8x128x3072", 2)])
def test_gelu_in_one_operation_holds_fewer_tensors(name: str, shape: str, each_layer: int) -> None:
    blocks, alive = timeline(name).blocks, timeline(name).alive(timeline(name).peak_event)
    held = [row for row in alive if CATEGORIES[blocks.category[row]] is Category.ACTIVATION and blocks.shape.text(row) == shape]

    assert len(held) == 12 * each_layer


def test_the_llama_s_cache_is_2048_bytes_a_token_and_is_made_anew_for_each() -> None:
    name, a_token = "3-llama-decode", 2 * 4 * 2 * 32 * 4  # keys and values, layers, their heads, numbers a head, float32
    decode = np.flatnonzero(timeline(name).blocks.event_phase == list(Phase).index(Phase.DECODE))
    series = timeline(name).by_category(decode)
    cache_bytes = series[Category.KV_CACHE]

    assert at_peak(name, Category.KV_CACHE) == a_token * 8 * 512
    assert int(cache_bytes[-1]) == a_token * 8 * (512 + 32)
    assert int(cache_bytes.max()) == a_token * 8 * (512 + 32) + a_token * 8 * (512 + 31) // 8  # both lengths of one of the eight tensors
    assert Category.ACTIVATION not in series
    assert at_peak(name, Category.LOGITS) == 4096 * 4096 * 4
    assert summary(name)["peak_at"]["phase"] == "prefill"


def test_the_lstm_s_peak_is_weights_and_states_and_its_kernel_keeps_one_block_a_layer() -> None:
    name = "4-lstm-training"
    blocks, alive = timeline(name).blocks, timeline(name).alive(timeline(name).peak_event)
    largest = alive[np.argsort(-blocks.bytes[alive])][:3]
    share = (at_peak(name, Category.PARAMETER) + at_peak(name, Category.OPTIMIZER_STATE)) / summary(name)["peak_allocated_bytes"]

    assert share > 0.6
    assert [blocks.operator.text(row) for row in largest[:2]] == ["aten::mkldnn_rnn_layer"] * 2
    assert [CATEGORIES[blocks.category[row]] for row in largest] == [Category.ACTIVATION] * 2 + [CATEGORIES[blocks.category[largest[2]]]]
    assert blocks.module.text(largest[2]) != "layers"
    assert summary(name)["peak_at"]["phase"] == "backward"


def test_micro_batches_quarter_the_activations_and_hold_the_gradients_beside_them() -> None:
    whole, parts = "8-whole-batch", "9-micro-batches"

    assert at_peak(parts, Category.ACTIVATION) == pytest.approx(at_peak(whole, Category.ACTIVATION) / 4, rel=1e-4)
    assert at_peak(whole, Category.GRADIENT) == 0
    assert at_peak(parts, Category.GRADIENT) == at_peak(parts, Category.PARAMETER)
    assert summary(whole)["peak_allocated_bytes"] < GIB
    losses = [[row["value"] for row in recording(name).scalars.to_pylist()] for name in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_the_simulated_sample_is_too_close_to_say_and_its_peak_is_five_times_the_weights() -> None:
    name = "10-llama-on-an-rtx-4090"
    verdict = judge_fit(recording(name), GPUS["rtx-4090"], timeline=timeline(name))
    weights = at_peak(name, Category.PARAMETER)

    assert verdict.kind is Fit.TOO_CLOSE
    assert format_bytes(verdict.capacity_bytes) == "23.5 GiB"
    assert at_peak(name, Category.GRADIENT) == at_peak(name, Category.OPTIMIZER_TEMPORARY) == weights
    assert summary(name)["peak_at"]["phase"] == "optimizer"
    assert Category.ACTIVATION.name not in summary(name)["categories_at_peak"]

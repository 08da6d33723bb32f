"""Experiments as data, their results in the store, the promises' verdicts and the guided run. No torch is needed for any of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.compression import lab
from profiler.compression.base import Kind
from profiler.compression.expectations import Reach, expected_ratio
from profiler.compression.experiment import Experiment
from profiler.compression.promises import PROMISES, Evidence, Promise, Verdict, int8_share
from profiler.compression.registry import PIPELINES, TECHNIQUES
from profiler.compression.result import Result, ResultStore
from profiler.compression.sparse_formats import FORMATS, Matrix, break_even
from profiler.compression.target import Goal, Known, Target, best, candidates, pareto
from profiler.compression.training_facts import OptimizerState, StepTime, TrainingFacts
from profiler.errors import FormatError, SpecError
from tests.compression.results import result
from tests.conftest import ROOT


def test_an_experiment_is_the_same_data_however_it_is_written() -> None:
    one = Experiment.of("lab", ("Prune_Global:amount=0.5", "zstd:level=9"))
    other = Experiment.from_json(json.loads(json.dumps(one.to_json())))

    assert one == other == Experiment.of("lab", ("prune-global", "zstd"))
    assert one.id == other.id != Experiment.of("lab", ("prune-global", "zstd"), seed=1).id
    assert one.title == "lab · prune-global + zstd"


def test_a_pipelines_name_stands_for_its_stages_and_the_amount_is_for_the_first_that_takes_one() -> None:
    experiment = Experiment.of("lab", ("deep-compression",), amount="0.8")

    assert list(map(str, experiment.stages)) == ["prune-global:amount=0.8", "fine-tune", "k-means", "huffman"]


@pytest.mark.parametrize(
    ("names", "amount", "words"),
    [
        (("store-csr", "prune"), None, "Put prune before store-csr"),
        (("huffman", "k-means"), None, "Put huffman last"),
        (("prune", "distill"), None, "Put distill first"),
        (("prun",), None, "Did you mean 'prune'"),
        (("prune:share=1",), None, "It has amount"),
        (("prune",), "1.5", "from 0 to 0.99"),
        (("bfloat16",), "4", "takes an amount"),
        (("deep-compression:bits=3",), None, "Name them one by one"),
        (("fine-tune",) * 13, None, "at most 12"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(names: tuple[str, ...], amount: str | None, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Experiment.of("lab", names, amount)


def test_a_technique_that_works_on_the_whole_is_not_applied_by_layer() -> None:
    with pytest.raises(SpecError, match="cannot be applied matrix by matrix"):
        Experiment.of("lab", ("bfloat16",), by_layer=True)
    assert Experiment.of("lab", ("prune",), by_layer=True).id != Experiment.of("lab", ("prune",)).id
    assert Experiment.from_json(Experiment.of("lab", ("prune",), by_layer=True).to_json()).by_layer


@pytest.mark.parametrize("data", [None, [], {}, {"model": "lab", "stages": [3]}, {"model": "lab", "seed": -1}])
def test_what_is_no_experiment_is_refused(data: object) -> None:
    with pytest.raises(SpecError):
        Experiment.from_json(data)


@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=TECHNIQUES)
def test_a_technique_says_what_it_promises_and_takes_its_own_defaults(technique: object) -> None:
    item = TECHNIQUES[technique.name]  # type: ignore[attr-defined]

    assert item.amount in {None, *(parameter.name for parameter in item.parameters)}
    assert item.promise.endswith(".")
    assert item.explanation.endswith(".")
    assert {p.name: p.parse(p.write(p.default)) for p in item.parameters} == item.read_options({})
    assert callable(item.load())


def test_pipelines_are_experiments() -> None:
    for name in PIPELINES:
        stages = Experiment.of("lab", (name,)).techniques
        assert all(before.kind is not Kind.CODING for before, _ in pairwise(stages))


def test_results_come_back_from_the_store_newest_first_and_damaged_files_are_left_out(home: Path) -> None:
    store, found = ResultStore(), result("prune", "store-csr", zero_share=0.5)
    store.add("abc", found)
    (store.folder / "def.json").write_text("{")
    (store.folder / "ghi.json").write_text('{"experiment": {"model": "lab"}}')

    assert store.find("abc") == found
    assert store.find("missing") is None
    assert store.list() == [found]
    assert store.folder == home / "compression"


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_is_no_result_is_refused(data: object) -> None:
    with pytest.raises(FormatError):
        Result.from_json(data)


def test_a_result_of_an_earlier_version_has_no_spread_and_one_that_is_no_spread_is_refused() -> None:
    data = result("nf4").to_json()

    assert Result.from_json(json.loads(json.dumps(data))) == result("nf4")
    assert Result.from_json({**data, "seconds_spread": None}).seconds_spread is None
    with pytest.raises(FormatError):
        Result.from_json({**data, "seconds_spread": [1.0, 2.0, 3.0]})


def test_the_clocks_seconds_stand_beside_the_processors_and_results_of_before_have_none() -> None:
    found = replace(result("nf4"), wall_seconds=0.075, baseline_wall_seconds=0.05)
    data = result("nf4").to_json()
    del data["wall_seconds"], data["baseline_wall_seconds"]

    assert Result.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert found.wall_phrase == "75.0 ms of 50.0 ms by the clock"
    assert (found.facts()["wall_seconds"], found.facts()["baseline_wall_seconds"]) == (0.075, 0.05)
    assert Result.from_json(data).facts()["wall_seconds"] is None
    assert Result.from_json(data).wall_phrase == ""


def test_a_model_of_tokens_says_its_loss_per_byte_of_the_text_too() -> None:
    found = replace(result("nf4", loss=2.0), unit="token", num_targets=2_000, num_text_bytes=8_000)  # the baseline's loss is 1.4

    facts = found.facts()

    assert Result.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert (facts["loss_per_byte"], facts["baseline_loss_per_byte"]) == (0.5, 0.35)
    assert facts["perplexity_per_byte"] == pytest.approx(1.648721)  # the square root of e
    assert (facts["num_targets"], facts["num_text_bytes"]) == (2_000, 8_000)
    assert found.per_byte_phrase == "loss per byte 0.5000 (was 0.3500), perplexity per byte 1.649 (was 1.419)"


def test_of_results_of_before_the_loss_per_byte_is_not_measured_but_where_units_are_bytes() -> None:
    data = result("nf4", loss=2.0).to_json()
    del data["num_targets"], data["num_text_bytes"]
    of_bytes, of_tokens, of_words = (Result.from_json({**data, "unit": unit}) for unit in ("byte", "token", "word"))

    assert (of_bytes.facts()["loss_per_byte"], of_bytes.per_byte_phrase) == (2.0, "")
    assert (of_tokens.facts()["loss_per_byte"], of_tokens.per_byte_phrase) == (None, "loss per byte not measured")
    assert (of_words.facts()["loss_per_byte"], of_words.per_byte_phrase) == (None, "")
    assert of_tokens.facts()["perplexity_per_byte"] is None


def test_facts_are_one_flat_row_with_the_baseline_beside_each_number() -> None:
    facts = result("bfloat16", held=500, loss=1.5).facts()

    for name in ("held_bytes", "resident_bytes", "file_bytes", "loss", "perplexity", "accuracy", "seconds"):
        assert {name, f"baseline_{name}"} <= facts.keys()
    assert facts["technique"] == "bfloat16"
    assert facts["perplexity"] == pytest.approx(4.4817, abs=1e-4)
    json.dumps(facts)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("coo", 0.8),
        ("csr-as-torch-makes-it", 0.8),
        ("csr-int64", 2 / 3),
        ("csr-int32", 0.5),
        ("bitmask", 1 / 32),
        ("bsr-4", 1 / 9),  # 72 bytes for a block that takes 64
        ("bsr-8", 1 / 33),  # 264 for 256
        ("bsr-16", 1 / 129),  # 1,032 for 1,024
        ("bsr-32", 1 / 513),  # 4,104 for 4,096
    ],
)
def test_a_format_breaks_even_where_the_arithmetic_says(name: str, share: float) -> None:
    assert break_even(FORMATS[name]) == pytest.approx(share, abs=0.003)


def test_two_of_four_is_0_531_of_float32_and_0_5625_of_16_bits_whatever_the_zeros() -> None:
    for itemsize, expected in ((4, 0.53125), (2, 0.5625)):
        matrix = Matrix(rows=64, columns=64, nonzeros=0, itemsize=itemsize)
        assert FORMATS["2:4"].num_bytes(matrix) / matrix.dense_bytes == expected


@given(rows=st.integers(1, 64), columns=st.integers(1, 64), itemsize=st.sampled_from([1, 2, 4]))
def test_below_its_break_even_a_format_is_no_smaller_and_above_it_is(rows: int, columns: int, itemsize: int) -> None:
    for format_ in FORMATS.values():
        share = break_even(format_, rows, columns, itemsize)
        most = rows * columns if share is None else round((1 - share) * rows * columns) + 1
        for nonzeros in {most, 0} if share is None else {most}:
            if nonzeros <= rows * columns:
                matrix = Matrix(rows=rows, columns=columns, nonzeros=nonzeros, itemsize=itemsize)
                assert format_.num_bytes(matrix) >= matrix.dense_bytes


def test_int8_of_bert_is_a_quarter_and_its_scales_and_not_a_64th() -> None:
    assert int8_share(1_000_000, 1.0, 1024) == pytest.approx(0.25 + 1 / 1024)
    assert int8_share(1_000_000, 0.0, 1024) == 1
    assert "it is 0.322" in next(item for item in PROMISES if item.name == "int8-bert").corrected


@pytest.mark.parametrize(
    ("name", "found", "verdict"),
    [
        ("int8-bert", result("int8-weight-only", held=160), Verdict.HOLDS),
        ("int8-bert", result("int8-weight-only", held=251), Verdict.FAILS),
        ("prune-compute", result("prune", held=1000), Verdict.FAILS),
        ("prune-compute", result("prune", held=1000, seconds=0.7), Verdict.HOLDS),
        ("sparse-0.6", result("store-csr", held=1193, zero_share=0.4), Verdict.FAILS),
        ("bitmask", result("store-bitmask", held=660, zero_share=0.4), Verdict.PARTLY),
        ("four-bits", result("packed-int", held=187), Verdict.PARTLY),
        ("four-bits-by-name", result("intx-weight-only", held=315), Verdict.FAILS),
        ("dynamic-int8", result("dynamic-int8", seconds=0.46, loss=1.41), Verdict.HOLDS),
        ("dynamic-int8", result("dynamic-int8", seconds=0.46, loss=2.7), Verdict.PARTLY),
        ("zip", result("zstd", file=926), Verdict.FAILS),
        ("deep-compression", result("huffman", file=136, matrices_bytes=3400, coded_bytes=230), Verdict.PARTLY),
        ("distillation", result("distill", held=152, accuracy=0.4, control_loss=1.84), Verdict.PARTLY),
        ("distillation", result("distill", held=900, accuracy=0.4, control_loss=1.84), Verdict.FAILS),
        ("distillation", result("distill", held=600, accuracy=0.49, control_loss=1.84), Verdict.HOLDS),
    ],
)
def test_a_promise_is_judged_by_the_measurement(name: str, found: Result, verdict: Verdict) -> None:
    assert promise_of(name).finding(Evidence(results=[found])).verdict is verdict


def test_without_its_evidence_no_promise_has_a_verdict() -> None:
    for promise in PROMISES:
        assert promise.finding(Evidence()).verdict is Verdict.NOT_MEASURED
        assert promise.is_of_training or Experiment.of("lab", promise.stages).stages


@pytest.mark.parametrize(("many", "few", "verdict"), [(635, 1193, Verdict.PARTLY), (1010, 1193, Verdict.FAILS), (500, 900, Verdict.HOLDS)])
def test_sparse_parameters_are_judged_above_and_below_the_break_even(many: int, few: int, verdict: Verdict) -> None:
    promise, above = promise_of("sparse-parameters"), result("store-csr", held=many, zero_share=0.7)

    finding = promise.finding(Evidence(results=[above], beside=[result("store-csr", held=few, zero_share=0.4)]))

    assert finding.verdict is verdict
    assert "With 70% zeros" in finding.sentence
    assert "with 40% it holds" in finding.sentence
    assert promise.finding(Evidence(results=[above])).verdict is Verdict.NOT_MEASURED


def test_what_a_teacher_gives_is_told_over_all_seeds() -> None:
    def said(*losses: float) -> str:
        runs = [result("distill", held=152, loss=loss, accuracy=0.4, control_loss=1.84) for loss in losses]
        return promise_of("distillation").finding(Evidence(results=runs)).sentence

    assert "its teacher gave +0.0400 of loss with one seed" in said(1.80)
    assert "its teacher gave +0.0200 to +0.0400 of loss with 2 seeds" in said(1.80, 1.82)
    assert "gave -0.0100 to +0.0400 of loss: 3 seeds do not tell it from none" in said(1.80, 1.82, 1.85)
    assert "is right 80% as often" in said(1.80)


@pytest.mark.parametrize(("seconds", "verdict"), [(0.5, Verdict.FAILS), (0.25, Verdict.HOLDS)])
def test_parallel_training_is_judged_by_the_clock_and_momentum_by_its_bytes(seconds: float, verdict: Verdict) -> None:
    names = {"sgd": 0, "sgd:momentum=0.9": 4_096, "adam": 8_192}
    training = TrainingFacts(
        parameter_bytes=4_096,
        states=tuple(OptimizerState(name=name, state_bytes=num_bytes) for name, num_bytes in names.items()),
        times=tuple(StepTime(num_workers=number, seconds=took) for number, took in ((1, 1.0), (2, 0.8), (4, seconds))),
        num_cores=8,
    )

    parallel, momentum = (promise_of(name).finding(Evidence(training=training)) for name in ("parallelism", "momentum"))

    assert parallel.verdict is verdict
    assert f"in 2 processes 1.25 times, in 4 processes {1 / seconds:.2f} times. This machine has 8 cores" in parallel.sentence
    assert momentum.verdict is Verdict.FAILS
    assert "plain SGD keeps 0 B, with momentum 4.00 KiB, Adam 8.00 KiB; the parameters are 4.00 KiB" in momentum.sentence


def promise_of(name: str) -> Promise:
    return next(promise for promise in PROMISES if promise.name == name)


def test_candidates_that_meet_the_target_come_first_and_measurements_replace_expectations() -> None:
    target = Target(goal=Goal.MEMORY, ratio=0.3, loss_gain=0.05)
    expected = candidates("lab", target)
    assert expected[0].meets
    assert [row.meets for row in expected] == sorted((row.meets for row in expected), reverse=True)
    first = expected[0].experiment

    missed = result(*map(str, first.stages), held=900)
    again = candidates("lab", target, [missed])

    row = next(row for row in again if row.experiment.stages == first.stages)
    assert (row.measured, row.known, row.loss_gain) == (True, Known.MEASURED, 0.0)
    assert not row.meets
    assert "bytes 0.900, above 0.300" in row.reason
    assert len(again) == len(expected)


def test_smollm2s_shape_is_that_of_its_published_configuration() -> None:
    width, between, key_width, num_tokens, num_layers = 576, 1536, 3 * 64, 49_152, 30
    layer = 2 * width * width + 2 * width * key_width + 3 * width * between
    norms = 2 * width * num_layers + width

    assert lab.find("smollm2").shape == lab.Shape(
        num_parameters=num_layers * layer + num_tokens * width + norms,
        num_linear=num_layers * layer,
        num_output=num_tokens * width,
        output_is_embedding=True,
    )


@pytest.mark.parametrize(
    ("model", "technique", "measured"),
    [
        ("smollm2", "int8-weight-only", 0.463),
        ("smollm2", "packed-int:bits=4", 0.367),
        ("lab", "int8-weight-only", 0.286),
        ("lab", "packed-int:bits=4", 0.187),
        ("lab", "prune-global:amount=0.7 + fine-tune + store-bitmask", 0.380),
        ("lab", "low-rank:rank=32 + fine-tune", 0.429),
        ("lab", "layer-drop + fine-tune", 0.768),
        ("lab", "prune-structured:amount=0.5 + fine-tune", 0.679),
        ("lab", "prune-blocks:amount=0.7 + fine-tune + store-bsr", 0.389),
    ],
)
def test_what_is_expected_in_memory_is_near_what_was_measured_and_published(model: str, technique: str, measured: float) -> None:
    wanted = Experiment.of(model, technique.split(" + ")).stages

    row = next(row for row in candidates(model, Target(goal=Goal.MEMORY, ratio=0.35)) if row.experiment.stages == wanted)

    assert row.ratio == pytest.approx(measured, abs=0.01)
    assert row.meets == (measured <= 0.35 and row.loss_gain is not None and row.loss_gain <= 0.05)


def test_what_is_left_depends_on_where_a_model_has_its_parameters() -> None:
    shape = lab.Shape(num_parameters=1000, num_linear=400, num_output=100, num_recurrent=200)
    left = {reach: expected_ratio(shape, reach, 0.25) for reach in Reach}

    assert left == {
        Reach.ALL: 0.25,
        Reach.LINEAR: 0.625,
        Reach.LINEAR_AND_RECURRENT: 0.475,
        Reach.INNER_LINEAR: 0.7,
        Reach.INNER: 0.55,
    }
    assert expected_ratio(replace(shape, output_is_embedding=True), Reach.LINEAR, 0.25) == 0.725


def test_coders_save_nothing_in_memory_and_come_last_there() -> None:
    rows = candidates("lab", Target(goal=Goal.MEMORY, ratio=0.99, loss_gain=10))

    assert not [row for row in rows if row.meets and row.experiment.stages[0].name in ("ans", "k-means")]


def test_the_best_meets_the_target_with_the_least_loss() -> None:
    results = [result("bfloat16", held=500, loss=1.4), result("packed-int", held=187, loss=1.41), result("nf4", held=196, loss=1.405)]

    assert best(Target(goal=Goal.MEMORY, ratio=0.2), results) is results[2]
    assert best(Target(goal=Goal.MEMORY, ratio=0.1), results) is None
    assert best(Target(goal=Goal.MEMORY, ratio=0.9), results) is results[0]
    assert pareto([*results, result("intx-weight-only", held=315, loss=1.5)], Goal.MEMORY) == [results[1], results[2], results[0]]


@pytest.mark.parametrize("wrong", [{"ratio": 0.0}, {"ratio": 1.5}, {"ratio": 0.5, "loss_gain": -1}, {"ratio": 0.5, "time_ratio": 0}])
def test_a_target_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="is not possible"):
        Target(goal=Goal.DISK, **wrong)


def test_what_pages_read_of_the_lab_loads_no_torch() -> None:
    modules = "experiment registry result sparse_formats products promises target lab"
    code = f"""
import sys
import profiler.jobs.experiments, profiler.jobs.facts, profiler.cli
for name in {modules.split()!r}:
    __import__('profiler.compression.' + name)
from profiler.compression.registry import TECHNIQUES
[item.to_install for item in TECHNIQUES.values()]
print([name for name in ('torch', 'transformers', 'torchao', 'peft', 'constriction') if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "[]"

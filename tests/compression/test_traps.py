"""Ways in which the lab's numbers could be wrong, met in trials: each has a rule and tests that hold it; those of processes are here."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from profiler.compression.experiment import Experiment
from profiler.compression.measure import NOISE_BYTES
from profiler.jobs.experiments import measure_in_worker
from tests.conftest import ROOT

TRAPS: dict[str, tuple[str, ...]] = {
    "Threads on a contended machine: one thread, the processor's time, and the clock's beside it.": (
        "test_measuring.py::test_a_pipeline_is_measured_stage_by_stage_beside_the_untouched_model",
        "test_measuring.py::test_a_pass_that_waits_takes_the_clocks_time_and_not_the_processors",
    ),
    "A checkpoint that is replaced meanwhile: the baseline has a digest, and results are kept under it.": (
        "test_measuring.py::test_the_baseline_is_the_same_each_time_and_its_digest_sees_one_bit",
        "test_measuring.py::test_a_result_is_kept_under_the_weights_that_were_there_when_the_worker_was_told",
    ),
    "CSR as torch makes it holds a buffer twice as long, and saves it: storages are counted in full.": (
        "test_held_bytes.py::test_a_technique_leaves_the_bytes_that_a_hand_count_says",
        "test_file_bytes.py::test_a_plain_file_has_the_bytes_of_a_hand_count_and_little_beside_them",
    ),
    "Layers of a class that a library skips: the notes say how many layers were changed.": (
        "test_held_bytes.py::test_a_layer_of_a_class_that_the_library_skips_is_told_and_a_tied_output_layer_makes_the_model_larger",
        "test_held_bytes.py::test_a_technique_that_finds_nothing_to_do_says_so",
    ),
    "Weights packed outside of what Python sees, and copies of them there: the resident set stands beside the held bytes.": (
        "test_traps.py::test_the_resident_set_sees_what_is_packed_and_what_is_kept_twice_outside_of_python",
        "test_measuring.py::test_where_one_way_to_count_is_blind_a_note_says_so",
    ),
    "Four bits by name, a byte in memory: bytes are counted and the promise is judged by them.": (
        "test_held_bytes.py::test_a_technique_leaves_the_bytes_that_a_hand_count_says",
        "test_experiments.py::test_a_promise_is_judged_by_the_measurement",
    ),
    "An exported graph keeps the float32 originals: they count.": (
        "test_held_bytes.py::test_a_technique_leaves_the_bytes_that_a_hand_count_says",
        "test_file_bytes.py::test_a_plain_file_has_the_bytes_of_a_hand_count_and_little_beside_them",
    ),
    "A coder that works in its caller's memory: what is coded stays as it was, and every file is read back.": (
        "test_coding.py::test_every_coder_gives_the_symbols_back_and_leaves_its_input_alone",
        "test_coding.py::test_a_coded_file_gives_every_bit_of_the_model_back",
    ),
    "Fine-tuning that harms by itself: the untouched model is trained in the same way.": (
        "test_measuring.py::test_the_control_of_fine_tuning_is_fine_tuning_alone_and_is_not_trained_again_where_its_loss_is_known",
        "test_measuring.py::test_the_control_of_additions_is_the_untouched_model_with_additions_trained_alike",
    ),
    "A library that crashes the interpreter at its end: each experiment in a process that leaves once its answer is there.": (
        "test_measuring.py::test_a_worker_that_crashes_after_its_answer_has_answered",
        "test_measuring.py::test_an_experiment_that_fails_says_why",
    ),
    "Libraries that print when they are loaded: nothing of it is left to be taken for a reason.": (
        "test_traps.py::test_nothing_that_libraries_say_when_they_are_loaded_is_left_on_stderr",
    ),
}
"""A trap and its rule -> the tests of this folder by which the rule holds."""

WORKER = (sys.executable, "-m", "tests.compression.fake_lab_worker")
EMBEDDING = 4 * 256 * 2048
MATRICES = 4 * (4 * 2048 * 2048 + 256 * 2048)
"""Bytes of the task ``wide`` in float32."""
INT8 = EMBEDDING + MATRICES // 4 + 5 * 16
BIASES = 4 * (4 * 2048 + 256)
"""Zeros that qnnpack makes where a layer has none."""


@pytest.mark.parametrize("test", [test for tests in TRAPS.values() for test in tests])
def test_the_test_that_holds_a_rule_exists(test: str) -> None:
    path, _, function = test.partition("::")
    tree = ast.parse((Path(__file__).parent / path).read_text(encoding="utf-8"))

    assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "held", "resident", "note"),
    [
        ("dynamic-float16", EMBEDDING + MATRICES, EMBEDDING + MATRICES // 2, "packed where Python does not see them"),
        ("dynamic-int8:engine=onednn", INT8, INT8 + MATRICES // 4, "a library keeps a copy of its own"),
        ("dynamic-int8:engine=qnnpack", INT8 + BIASES, INT8 + MATRICES // 4, "a library keeps a copy of its own"),
        ("dynamic-int8", INT8, INT8, None),
    ],
)
def test_the_resident_set_sees_what_is_packed_and_what_is_kept_twice_outside_of_python(
    stage: str, held: int, resident: int, note: str | None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    found = measure_in_worker(Experiment.of("wide", (stage,)), command=WORKER)

    assert found.size.held_bytes == held
    assert found.size.resident_bytes == pytest.approx(resident, abs=NOISE_BYTES)
    assert found.size.file_bytes == pytest.approx(held, rel=0.01)
    said = [text for text in found.notes if text.startswith("The process grew")]
    assert [note in text for text in said] == ([True] if note else [])


def test_nothing_that_libraries_say_when_they_are_loaded_is_left_on_stderr(tmp_path: Path) -> None:
    experiment = Experiment.of("tiny", ("int8-weight-only",))
    (tmp_path / "question.json").write_text(json.dumps({"kind": "experiment", "experiment": experiment.to_json(), "controls": {}}))

    done = subprocess.run([*WORKER, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)

    assert (tmp_path / "answer.json").is_file()
    assert done.stderr == ""

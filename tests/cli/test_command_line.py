"""The command line itself: what it lists, what it shows of a recording, and with which code it ends."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from profiler import __version__
from profiler.models.catalogue import CATALOGUE
from profiler.recording import Phase, Provenance
from profiler.storage import RecordingWriter, read_metadata, read_recording, write_recording
from tests.builders import metadata, small_training
from tests.cli.conftest import SHOWN, Run, is_one_sentence_of_headroom
from tests.conftest import ROOT


def test_models_lists_every_model_with_its_size(run: Run) -> None:
    result = run("models")

    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == list(CATALOGUE)
    assert "gpt2                   124 M  GPT-2\n" in result.out


def test_models_as_json_gives_exact_counts(run: Run) -> None:
    rows = {row["name"]: row for row in run("models", "--json").json}

    assert list(rows) == list(CATALOGUE)
    assert rows["gpt2"] == {
        "name": "gpt2",
        "family": "gpt2",
        "head": "causal-lm",
        "num_parameters": 124_439_808,
        "num_parameters_with_head": CATALOGUE["gpt2"].num_parameters_with_head,
        "max_positions": 1024,
        "tiny": False,
        "source": CATALOGUE["gpt2"].source,
    }


def test_doctor_says_what_this_machine_has(run: Run, home: Path) -> None:
    findings = run("doctor", "--json").json
    words = run("doctor")

    assert list(findings) == ["python", "libraries", "processor", "memory", "cuda", "nvml", "run_store"]
    assert findings["run_store"] == str(home)
    assert words.code == 0
    assert f"run store    {home}\n" in words.out


def test_doctor_says_that_torch_is_missing_where_it_is(run: Run, without: Callable[[str], None]) -> None:
    without("torch")

    result = run("doctor", "--json")

    assert result.code == 0
    assert "torch is not installed" in result.json["cuda"]


def test_the_version_is_the_package_s(run: Run) -> None:
    assert run("--version") == (0, f"headroom {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "'frobnicate'"),
        ([], "COMMAND"),
        (["simulate", "--model", "gpt2"], "--gpu"),
        (["profile", "--model", "gpt2", "--batch", "many"], "'many'"),
        (["profile", "--model", "gpt2", "--workload", "trian"], "'trian'"),
        (["show"], "file"),
    ],
)
def test_what_cannot_be_parsed_is_one_sentence_and_code_2(run: Run, arguments: list[str], said: str) -> None:
    result = run(*arguments)

    assert (result.code, result.out) == (2, "")
    assert is_one_sentence_of_headroom(result.err)
    assert said in result.err
    assert "--help` lists what is allowed." in result.err


@pytest.mark.parametrize("command", ["models", "profile", "record", "show", "doctor"])
def test_every_command_has_help_and_json(run: Run, command: str) -> None:
    result = run(command, "--help")

    assert result.code == 0
    assert "--json" in result.out


def test_a_reader_that_has_enough_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "profiler", "models", "--json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()

    assert (process.wait(timeout=60), err) == (0, "")


@pytest.fixture
def recording(here: Path) -> Path:
    write_recording(small_training(), here / "small.headroom")
    return here / "small.headroom"


def test_show_as_json_prints_the_facts(run: Run, recording: Path) -> None:
    result = run("show", recording, "--json")
    facts = result.json

    assert (result.code, result.err) == (0, "")
    assert facts.keys() >= SHOWN
    assert facts["id"] == read_metadata(recording).id
    assert Provenance(facts["provenance"]) is Provenance.MEASURED
    assert facts["num_events"] == read_recording(recording).events.num_rows
    assert facts["peak_at"].keys() >= {"step", "phase", "event"}
    assert Phase(facts["peak_at"]["phase"]) is Phase.BACKWARD
    assert sum(facts["categories_at_peak"].values()) == facts["peak_allocated_bytes"] == 2000
    assert facts["steps"] == [0, 1, 2]
    assert facts["warnings"] == []


def test_show_in_words_puts_the_largest_category_first(run: Run, recording: Path) -> None:
    lines = run("show", recording).out.splitlines()

    assert lines[0] == "small training  [measured]"
    assert lines[1] == "Peak allocated 1.95 KiB (2,000 B), step 1, backward"
    assert lines[2].split() == ["optimizer", "state", "800", "B", "40.0%"]


def test_show_reads_a_recording_in_progress(run: Run, here: Path) -> None:
    writer = RecordingWriter(here / "going")
    writer.describe(metadata())
    writer.add("events", small_training().events)

    result = run("show", here / "going.partial", "--json")

    assert result.code == 0
    assert result.json["complete"] is False
    assert "ended before its recording was closed" in result.json["warnings"][0]


def truncated(recording: Path) -> None:
    recording.write_bytes(recording.read_bytes()[: recording.stat().st_size // 2])


def foreign(recording: Path) -> None:
    with zipfile.ZipFile(recording, "w") as archive:
        archive.writestr("data.pkl", b"cos\nsystem\n(S'true'\ntR.")


def of_tomorrow(recording: Path) -> None:
    with zipfile.ZipFile(recording, "w") as archive:
        archive.writestr("manifest.json", '{"headroom": 99, "metadata": {}}')


def emptied(recording: Path) -> None:
    recording.write_bytes(b"")


def replaced_by_a_folder(recording: Path) -> None:
    recording.unlink()
    recording.mkdir()


@pytest.mark.parametrize("damage", [truncated, foreign, of_tomorrow, emptied, replaced_by_a_folder, Path.unlink])
def test_show_refuses_what_is_no_recording(run: Run, recording: Path, damage: Callable[[Path], None]) -> None:
    damage(recording)

    result = run("show", recording)

    assert (result.code, result.out) == (2, "")
    assert is_one_sentence_of_headroom(result.err)
    assert "small.headroom" in result.err

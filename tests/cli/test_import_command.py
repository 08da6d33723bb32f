"""The command that keeps other people's snapshots: what it writes and what it refuses."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from profiler.storage import read_recording
from tests import builders
from tests.cli.conftest import Run, is_refused
from tests.conftest import ROOT
from tests.formats import snapshots
from tests.formats.snapshots import BASE, MIB, block, segment, write

RECORDINGS = ROOT.parent / "shared" / "recordings"
INDEX = RECORDINGS / "index.json"
REAL = [row for row in json.loads(INDEX.read_text(encoding="utf-8")) if "devices" in row.get("facts", {})] if INDEX.exists() else []


def test_a_snapshot_is_imported_and_shown(run: Run, training: Path, here: Path) -> None:
    result = run("import", training, "--out", "t.headroom", "--json")

    assert result.code == 0
    assert result.json["provenance"] == "imported"
    assert result.json["peak_allocated_bytes"] == 16 * MIB
    assert result.json["path"] == "t.headroom"
    assert sum(rule["peak_bytes"] for rule in result.json["category_rules"]) == 16 * MIB
    shown = run("show", "t.headroom", "--json").json
    assert shown["categories_at_peak"] == result.json["categories_at_peak"]
    assert shown["id"] == result.json["id"] == read_recording(here / "t.headroom").id


def test_what_each_rule_named_is_listed(run: Run, training: Path) -> None:
    text = run("import", training, "--out", "t").out

    rows = text.partition("Named by rule\n")[2].splitlines()
    assert rows[0].split() == ["4.00", "MiB", "25.0%", "1", "made", "or", "moved", "with", "the", "model", "and", "kept"]
    assert sum(float(row.split("%")[0].split()[-1]) for row in rows) == 100


def _example(language: str) -> str:
    text = (ROOT / "docs" / "how-to" / "name-memory-by-your-own-rules.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    return str(block)


def test_the_how_to_names_blocks_wherever_a_snapshot_is_read(run: Run, training: Path, here: Path) -> None:
    (here / "my-rules.json").write_text(_example("json"), encoding="utf-8")

    results = [run(*line.split()[3:], "--json") for line in _example("console").splitlines()]

    assert [result.code for result in results] == [0] * 4
    imported, _, compared, _ = (result.json for result in results)
    assert {rule["rule"]: rule["total_bytes"] for rule in imported["category_rules"]}["my model's cache"] == 4 * MIB
    assert compared["rows"] == []
    counters = json.loads(gzip.decompress((here / "training.json.gz").read_bytes()))["traceEvents"]
    assert max(event["args"].get("KV cache", 0) for event in counters if event["ph"] == "C") == 4 * MIB


def test_a_replay_says_the_phase_that_a_users_rule_gives(run: Run, training: Path, here: Path) -> None:
    rules = here / "rules.json"
    rules.write_text(json.dumps({"phases": [{"name": "mine", "frame": "module\\.py:_apply$", "phase": "data"}]}), encoding="utf-8")

    phases = [run("replay", training, "--capacity", "10MiB", *more, "--json").json["oom"]["phase"] for more in ([], ["--rules", rules])]

    assert phases == ["build", "data"]


@pytest.mark.parametrize("command", [("replay",), ("diff", "training.pickle"), ("export", "--to", "trace", "--out", "y")])
def test_rules_that_are_none_are_refused_by_every_command(run: Run, training: Path, here: Path, command: tuple[str, ...]) -> None:
    (here / "rules.json").write_text("[]", encoding="utf-8")

    result = run(command[0], training.name, *command[1:], "--rules", "rules.json")

    assert is_refused(result)
    assert "an object with the lists phases and blocks" in result.err


def test_the_suffix_of_the_recording_is_added(run: Run, training: Path, here: Path) -> None:
    assert run("import", training, "--out", "kept").code == 0
    assert (here / "kept.headroom").exists()


def test_a_gzipped_snapshot_is_imported_as_the_plain_one(run: Run, training: Path, here: Path) -> None:
    packed = here / "training.pickle.gz"
    packed.write_bytes(gzip.compress(training.read_bytes()))

    plain, gzipped = (run("import", path, "--out", f"{path.name}.headroom", "--json").json for path in (training, packed))

    assert gzipped["categories_at_peak"] == plain["categories_at_peak"]


def test_a_recording_in_progress_is_imported_as_a_file(run: Run, here: Path) -> None:
    from profiler.storage import RecordingWriter

    recording = builders.small_training()
    writer = RecordingWriter(here / "mine.headroom")
    writer.describe(recording.metadata)
    writer.add("events", recording.events)

    assert run("import", "mine.partial", "--out", "whole").code == 0
    assert len(read_recording(here / "whole.headroom").events) == len(recording.events)


def test_a_folder_is_imported_as_one_recording_with_a_rank_a_file(run: Run, here: Path) -> None:
    (here / "run").mkdir()
    later = snapshots.training()
    for event in later["device_traces"][0]:
        event["time_us"] += 1_000
    write(here / "run" / "snapshot_rank10.pickle", later)
    write(here / "run" / "snapshot_rank2.pickle", snapshots.training())
    (here / "run" / "notes.txt").write_text("not read", encoding="utf-8")

    result = run("import", "run", "--out", "both", "--json").json

    assert result["title"] == "run · 2 ranks · CUDA snapshots"
    assert result["lanes"] == ["GPU 0, rank 2", "GPU 0, rank 10"]
    assert result["peak_allocated_bytes"] == 16 * MIB
    events = read_recording(here / "both.headroom").events
    times = dict(zip(events["rank"].to_pylist()[::-1], events["time_us"].to_pylist()[::-1], strict=True))
    assert times[10] - times[2] == 1_000
    for rank in (2, 10):
        assert run("replay", "both.headroom", "--rank", str(rank), "--json").json["peak_reserved_bytes"] == 20 * MIB


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.pickle", b"", "is empty"),
        ("text.pickle", b"hello", "is not a CUDA memory snapshot"),
        ("trace.json", b'{"traceEvents": []}', "is not a CUDA memory snapshot"),
        ("page.html", b"<html></html>", "without a snapshot"),
        ("list.pickle", pickle.dumps([1, 2]), "not a CUDA memory snapshot"),
        ("cut.pickle", pickle.dumps(snapshots.training(), 4)[:-40], "cut.pickle"),
        ("cut.headroom", b"PK", "is not a Headroom recording"),
    ],
)
def test_a_file_that_is_none_is_refused_and_nothing_written(run: Run, here: Path, name: str, content: bytes, says: str) -> None:
    (here / name).write_bytes(content)

    result = run("import", name, "--out", "x.headroom")

    assert is_refused(result)
    assert says in result.err
    assert not list(here.glob("*x.headroom*"))


def test_a_file_that_would_run_something_is_refused_and_does_not(run: Run, here: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(here / "executed"),)

    (here / "hostile.pickle").write_bytes(pickle.dumps({"segments": Hostile()}))

    for command in (("import", "--out", "x.headroom"), ("replay",), ("export", "--to", "trace", "--out", "y")):
        result = run(command[0], "hostile.pickle", *command[1:])
        assert is_refused(result)
        assert "mkdir" in result.err
    assert sorted(path.name for path in here.iterdir()) == ["hostile.pickle"]


@pytest.mark.parametrize("name", ["missing.pickle", "missing.headroom", "missing"])
def test_a_file_that_is_not_there_is_refused(run: Run, name: str) -> None:
    result = run("replay", name)

    assert is_refused(result)
    assert "No such file" in result.err


def test_a_folder_without_snapshots_is_refused_and_says_what_is_looked_for(run: Run, here: Path) -> None:
    (here / "empty").mkdir()

    result = run("import", "empty", "--out", "x")

    assert is_refused(result)
    assert "0 snapshots" in result.err
    assert "*.pickle" in result.err


def test_two_files_of_one_rank_are_refused(run: Run, here: Path) -> None:
    (here / "run").mkdir()
    for name in ("a_rank0.pickle", "b_rank0.pickle"):
        write(here / "run" / name, snapshots.training())

    assert "several snapshots of one rank" in run("replay", "run").err


def test_a_pipe_is_refused_instead_of_waited_for(run: Run, here: Path) -> None:
    os.mkfifo(here / "pipe.pickle")

    assert "neither a file nor a folder" in run("replay", "pipe.pickle").err


def test_the_model_tells_parameters_among_what_is_older(run: Run, here: Path) -> None:
    size = 512 * 512 * 4
    old = block(BASE, size, size)
    config = {"model_type": "lstm", "vocab_size": 512, "hidden_size": 512, "num_hidden_layers": 1}
    (here / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write(here / "old.pickle", snapshots.snapshot([segment(BASE, 2 * MIB, [old, block(BASE + MIB, MIB, 0, "inactive")])], [[]]))

    assert set(run("import", "old.pickle", "--out", "a", "--json").json["categories_at_peak"]) == {"UNKNOWN"}
    assert set(run("import", "old.pickle", "--out", "b", "--model", "config.json", "--json").json["categories_at_peak"]) == {"PARAMETER"}
    assert "Did you mean 'gpt2'" in run("import", "old.pickle", "--out", "c", "--model", "gtp2").err


@pytest.fixture
def recordings() -> Path:
    if INDEX.exists():
        return RECORDINGS
    if os.environ.get("CI") == "true":
        pytest.fail("The folder of real recordings is missing beside the project; CI must test with it.")
    pytest.skip("The folder of real recordings is not beside the project.")


@pytest.mark.parametrize("row", REAL or [{}], ids=lambda row: row.get("file", "none"))
def test_a_real_snapshot_is_imported_shown_and_replayed_to_its_known_peak(run: Run, recordings: Path, row: dict[str, Any]) -> None:
    assert run("import", recordings / row["file"], "--out", "real", "--json").code == 0
    shown = run("show", "real.headroom", "--json").json

    for facts in row["facts"]["devices"]:
        replayed = run("replay", "real.headroom", "--device", str(facts["device"]), "--json").json
        assert replayed["peak_reserved_bytes"] == facts["peak_reserved"]
        assert replayed["peak_requested_bytes"] == facts["peak_requested"]
        assert replayed["peak_allocated_bytes"] == shown["peak_allocated_bytes"]
    assert sum(shown["categories_at_peak"].values()) == shown["peak_allocated_bytes"]

"""The command that writes recordings for other tools."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pytest

from profiler.recording import Category
from profiler.storage import write_recording
from tests import builders
from tests.cli.conftest import Run


def test_an_exported_snapshot_replays_to_the_same_peaks(run: Run, recorded_training: Path) -> None:
    assert run("export", recorded_training, "--to", "snapshot", "--out", "again.pickle", "--json").json["path"] == "again.pickle"

    first, second = (run("replay", path, "--json").json for path in (recorded_training, "again.pickle"))

    assert {name: first[name] for name in first if name.startswith("peak")} == {
        name: second[name] for name in second if name.startswith("peak")
    }


def test_an_exported_snapshot_says_the_category_beside_each_allocation(run: Run, here: Path) -> None:
    write_recording(builders.small_training(), here / "cpu.headroom")
    run("export", "cpu.headroom", "--to", "snapshot", "--out", "s.pickle")

    traces = pickle.loads((here / "s.pickle").read_bytes())["device_traces"]

    labels = {event["user_metadata"] for trace in traces for event in trace if event["action"] == "alloc"}
    assert {Category.GRADIENT.label, Category.LOGITS.label, Category.INPUT.label} <= labels


def test_an_exported_trace_counts_memory_by_category(run: Run, here: Path) -> None:
    write_recording(builders.small_training(), here / "cpu.headroom")
    run("export", "cpu.headroom", "--to", "trace", "--out", "t.json.gz")

    events = json.loads(gzip.decompress((here / "t.json.gz").read_bytes()))["traceEvents"]

    counters = [event for event in events if event["ph"] == "C"]
    assert {event["name"] for event in counters} == {"Allocated, Host"}
    assert max(sum(event["args"].values()) for event in counters[1:]) >= 2_000
    assert {"Parameter", "Optimizer state"} <= counters[-1]["args"].keys()


@pytest.mark.parametrize("out", ["no/such/folder.pickle", "."])
def test_an_export_that_cannot_be_written_leaves_nothing(run: Run, recorded_training: Path, here: Path, out: str) -> None:
    result = run("export", recorded_training, "--to", "snapshot", "--out", out)

    assert result.code == 2
    assert "cannot be written" in result.err
    assert not list(here.iterdir())

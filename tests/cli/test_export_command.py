"""The command that writes recordings for other tools."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from profiler.analysis.reserved import recorded_reserved
from profiler.analysis.timeline import Timeline
from profiler.recording import Category
from profiler.storage import read_recording, write_recording
from tests import builders
from tests.cli.conftest import Run, is_refused
from tests.formats import snapshots
from tests.formats.snapshots import BASE, MIB, block, segment, write


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


def larger_training(device: int = 0) -> dict[str, Any]:
    """`training` on a GPU, and behind it 30 MiB more in a segment of their own: 38 MiB allocated at the peak, 50 MiB reserved."""
    data = snapshots.training()
    where, size = BASE + 64 * MIB, 30 * MIB
    more = snapshots.History().add("segment_alloc", where, size).alloc(where, size).events
    history = data["device_traces"][0]
    for event in more:
        event["time_us"] += history[-1]["time_us"] + 10 - snapshots.START
    segments = [*data["segments"], segment(where, size, [block(where, size, size)])]
    return snapshots.snapshot([{**found, "device": device} for found in segments], [[]] * device + [history + more])


@pytest.fixture
def two_ranks(run: Run, here: Path) -> Path:
    """A recording of two ranks, both on GPU 0."""
    (here / "run").mkdir()
    write(here / "run" / "rank0.pickle", snapshots.training())
    write(here / "run" / "rank1.pickle", larger_training())
    assert run("import", "run", "--out", "both").code == 0
    return here / "both.headroom"


def peaks(run: Run, *arguments: str | Path) -> dict[str, int]:
    result = run("replay", *arguments, "--json").json
    return {name: result[name] for name in result if name.startswith("peak")}


@pytest.mark.parametrize(("rank", "allocated", "reserved"), [("0", 16 * MIB, 20 * MIB), ("1", 38 * MIB, 50 * MIB)])
def test_a_rank_that_shares_its_gpu_is_exported_with_its_own_peaks(
    run: Run, two_ranks: Path, rank: str, allocated: int, reserved: int
) -> None:
    assert run("export", two_ranks, "--to", "snapshot", "--rank", rank, "--out", "one.pickle").code == 0

    found = peaks(run, "one.pickle")

    assert found == peaks(run, two_ranks, "--rank", rank)
    assert (found["peak_allocated_bytes"], found["peak_reserved_bytes"]) == (allocated, reserved)


def test_ranks_that_share_a_gpu_are_not_mixed_into_one_history(run: Run, two_ranks: Path, here: Path) -> None:
    result = run("export", two_ranks, "--to", "snapshot", "--out", "mixed.pickle")

    assert is_refused(result)
    assert "Ranks 0, 1 of the recording share GPU 0" in result.err
    assert "--rank 0" in result.err
    assert not (here / "mixed.pickle").exists()


def test_ranks_on_gpus_of_their_own_are_devices_of_one_snapshot(run: Run, here: Path) -> None:
    (here / "run").mkdir()
    write(here / "run" / "rank0.pickle", snapshots.training())
    write(here / "run" / "rank1.pickle", larger_training(device=1))

    run("export", "run", "--to", "snapshot", "--out", "both.pickle")

    for rank in "01":
        assert peaks(run, "both.pickle", "--device", rank) == peaks(run, "run", "--rank", rank)


def test_a_rank_that_is_not_there_is_refused(run: Run, two_ranks: Path) -> None:
    result = run("export", two_ranks, "--to", "snapshot", "--rank", "3", "--out", "one.pickle")

    assert is_refused(result)
    assert "nothing of rank 3. It has: --rank 0, --rank 1." in result.err


def counters_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the counters of a trace by their name."""
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    counted = [event for event in events if event["ph"] == "C"]
    return {name: [event for event in counted if event["name"] == name] for name in dict.fromkeys(event["name"] for event in counted)}


def test_an_exported_trace_counts_what_was_reserved_up_to_its_peak(run: Run, two_ranks: Path, here: Path) -> None:
    run("export", two_ranks, "--to", "trace", "--out", "t.json.gz")
    recording = read_recording(two_ranks)
    lanes = Timeline.of(recording).blocks.lanes()

    counters = counters_of(here / "t.json.gz")

    assert len(lanes) == 2
    for lane, peak in zip(lanes, (20 * MIB, 50 * MIB), strict=True):
        counted = counters[f"Reserved, {lane.label}"]
        shown = recorded_reserved(recording, Timeline.of(recording, lane=lane))
        assert shown is not None
        assert max(event["args"]["Reserved"] for event in counted) == shown.peak_bytes == peak
        assert [event["ts"] for event in counted] == shown.changes["time_us"].tolist()
    assert len(counters) == 4


def test_an_exported_trace_of_one_rank_leaves_the_others_out(run: Run, two_ranks: Path, here: Path) -> None:
    run("export", two_ranks, "--to", "trace", "--rank", "1", "--out", "t.json.gz")

    assert counters_of(here / "t.json.gz").keys() == {"Allocated, GPU 0, rank 1", "Reserved, GPU 0, rank 1"}

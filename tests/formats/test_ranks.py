"""Recordings of several processes made one: nothing is lost, mixed up or moved against the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest

from profiler.analysis.timeline import Timeline
from profiler.formats.convert import to_recording
from profiler.formats.opening import snapshots_in
from profiler.formats.ranks import merge_ranks
from profiler.formats.snapshot import read_snapshot
from profiler.recording import HOST, Recording
from tests.builders import small_training
from tests.formats.snapshots import training, write


@pytest.fixture
def snapshot(tmp_path: Path) -> Recording:
    return to_recording(read_snapshot(write(tmp_path / "one.pickle", training())))


def test_each_rank_keeps_its_blocks_their_stacks_and_its_timeline(snapshot: Recording) -> None:
    merged = merge_ranks({0: snapshot, 3: snapshot, 5: snapshot}, "three")

    frames = dict(zip(merged.stacks["stack"].to_pylist(), merged.stacks["frames"].to_pylist(), strict=True))
    assert len(frames) == 3 * len(snapshot.stacks)
    alone = [(row["requested_bytes"], snapshot.stacks["frames"][row["stack"]].as_py()) for row in snapshot.events.to_pylist()]
    for rank in (0, 3, 5):
        mine = merged.events.filter(pc.equal(merged.events["rank"], rank))
        assert [(row["requested_bytes"], frames[row["stack"]]) for row in mine.to_pylist()] == alone
    blocks = Timeline.of(merged).blocks
    assert [(lane.device, lane.rank) for lane in blocks.lanes()] == [(0, 0), (0, 3), (0, 5)]
    assert {Timeline.of(merged, blocks, lane).peak_bytes for lane in blocks.lanes()} == {Timeline.of(snapshot).peak_bytes}


def test_ranks_lie_on_one_clock_and_those_without_one_begin_with_the_others(snapshot: Recording) -> None:
    origin = snapshot.metadata.facts["origin_us"]
    later = replace(snapshot, metadata=replace(snapshot.metadata, facts={**snapshot.metadata.facts, "origin_us": origin + 500}))

    merged = merge_ranks({0: later, 1: snapshot, 2: small_training()}, "three")

    events = merged.events
    begins = [pc.min(events.filter(pc.equal(events["rank"], rank))["time_us"]).as_py() for rank in range(3)]
    assert begins == [510.0, 10.0, 0.0], "the snapshot begins with its segment, 10 us before its first block"
    assert events["time_us"].to_pylist() == sorted(events["time_us"].to_pylist())
    assert Timeline.of(merged).at(0).time_us == 0.0
    assert set(merged.events["device"].to_pylist()) == {0, HOST}


def test_a_warning_of_all_ranks_is_said_once_and_one_of_some_with_their_numbers(snapshot: Recording) -> None:
    odd = replace(snapshot, metadata=replace(snapshot.metadata, warnings=[*snapshot.metadata.warnings, "Odd."]))

    assert merge_ranks({0: snapshot, 1: odd, 2: odd}, "three").metadata.warnings == [*snapshot.metadata.warnings, "Rank 1, 2: Odd."]


@pytest.mark.parametrize(
    ("names", "ranks"),
    [
        (["snap_rank10.pickle", "snap_rank2.pickle"], {2: "snap_rank2.pickle", 10: "snap_rank10.pickle"}),
        (["host-b_Rank-1.pkl", "host-a_Rank-0.pickle.gz"], {0: "host-a_Rank-0.pickle.gz", 1: "host-b_Rank-1.pkl"}),
        (["10.pickle", "9.pickle", "readme.md"], {0: "9.pickle", 1: "10.pickle"}),
        (["rank0.pickle", "other.html"], {0: "other.html", 1: "rank0.pickle"}),
    ],
)
def test_files_of_a_folder_are_ranked_by_their_names(tmp_path: Path, names: list[str], ranks: dict[int, str]) -> None:
    for name in names:
        (tmp_path / name).touch()

    assert {rank: path.name for rank, path in snapshots_in(tmp_path).items()} == ranks

"""What a snapshot says beside blocks, and an export has to keep: private pools, and what the driver had left when memory ran out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.private_pools import pool_of, with_pool, without_pool
from profiler.allocator.recorded import recorded
from profiler.allocator.recorded_ooms import RecordedOom, recorded_ooms
from profiler.allocator.replay import Replay, replay
from profiler.allocator.state import SegmentState
from profiler.allocator.trace import KIND_OF_ACTION
from profiler.formats.convert import to_recording
from profiler.formats.export_snapshot import snapshot_of, write_snapshot
from profiler.formats.ranks import merge_ranks, of_rank
from profiler.formats.replayable import DeviceReplay, replayable
from profiler.formats.snapshot import Snapshot, read_snapshot
from profiler.recording import Recording
from tests.allocator.programs import Machine, Program, programs
from tests.formats import snapshots
from tests.formats.snapshots import BASE, MIB, START, History, block, segment, write

_ACTION_OF_KIND: dict[int, str] = {kind: action for action, kind in KIND_OF_ACTION.items()}


def _again(recording: Recording, tmp_path: Path) -> Snapshot:
    write_snapshot(recording, tmp_path / "again.pickle")
    return read_snapshot(tmp_path / "again.pickle")


def _running_out(*errors: tuple[int, int]) -> dict[str, Any]:
    """Return `training` with errors behind it: bytes that were requested, and left."""
    data = snapshots.training()
    history = data["device_traces"][0]
    for requested, free in errors:
        event = History().add("oom", 0, requested, device_free=free, time_us=history[-1]["time_us"] + 10).events[0]
        del event["addr"]
        history.append(event)
    return data


def _errors_of(data: dict[str, Any]) -> list[tuple[int, int]]:
    return [(event["size"], event["device_free"]) for event in data["device_traces"][0] if event["action"] == "oom"]


def test_what_the_driver_had_left_comes_out_as_it_was(tmp_path: Path) -> None:
    original = read_snapshot(write(tmp_path / "a.pickle", _running_out((9 * MIB, MIB), (80 * MIB, 0), (9 * MIB, 3 * MIB))))
    recording = to_recording(original)

    again = _again(recording, tmp_path)

    before, after = (read.devices[0].device_free_bytes for read in (original, again))
    assert after == before
    assert list(after.values()) == [MIB, 0, 3 * MIB]
    assert recorded_ooms(to_recording(again).metadata) == recorded_ooms(recording.metadata)


@pytest.mark.filterwarnings("ignore")
def test_pytorchs_own_trace_says_what_was_left(tmp_path: Path) -> None:
    from torch.cuda import _memory_viz

    recording = to_recording(read_snapshot(write(tmp_path / "a.pickle", _running_out((9 * MIB, 3 * MIB)))))

    assert "9.0MiB requested, 3.0MiB free in CUDA" in _memory_viz.trace(snapshot_of(recording))


def test_each_error_of_each_rank_keeps_what_was_left_then(tmp_path: Path) -> None:
    errors = {0: [(9 * MIB, MIB), (9 * MIB, 2 * MIB)], 1: [(9 * MIB, 3 * MIB), (7 * MIB, 4 * MIB)]}
    merged = merge_ranks(
        {rank: to_recording(read_snapshot(write(tmp_path / f"{rank}.pickle", _running_out(*own)))) for rank, own in errors.items()}, "both"
    )

    for rank, own in errors.items():
        assert _errors_of(snapshot_of(of_rank(merged, rank))) == own
    assert recorded_ooms(merged.metadata)[2] == RecordedOom(0, 9 * MIB, 3 * MIB, rank=1)


def test_an_error_of_which_nothing_is_kept_has_nothing_left(tmp_path: Path) -> None:
    recording = to_recording(read_snapshot(write(tmp_path / "a.pickle", _running_out((9 * MIB, MIB), (7 * MIB, 2 * MIB)))))
    facts = recording.metadata.facts
    last = replace(recording, metadata=replace(recording.metadata, facts=facts | {"ooms": facts["ooms"][1:]}))
    other = replace(recording, metadata=replace(recording.metadata, facts=facts | {"ooms": [facts["ooms"][0]]}))

    assert _errors_of(snapshot_of(last)) == [(9 * MIB, 0), (7 * MIB, 2 * MIB)]
    assert _errors_of(snapshot_of(other)) == [(9 * MIB, 0), (7 * MIB, 0)], "the last one is about other bytes"


def test_segments_keep_the_pools_that_they_are_of(tmp_path: Path) -> None:
    pools = [(0, 0), (0, 9), (0, 4), (7, 0)]
    rows = [
        segment(where := BASE + number * 64 * MIB, 20 * MIB, [block(where, 20 * MIB, 20 * MIB)], segment_pool_id=pool)
        for number, pool in enumerate(pools)
    ]
    recording = to_recording(read_snapshot(write(tmp_path / "a.pickle", snapshots.snapshot(rows, [[]]))))

    written = snapshot_of(recording)["segments"]

    assert [row["segment_pool_id"] for row in written] == [(0, 0), (0, 2), (0, 1), (0, 3)], "in the order of their ids"
    assert [row["stream"] for row in written] == [0] * 4


def test_touching_pages_of_two_pools_stay_apart(tmp_path: Path) -> None:
    rows = [
        segment(where := BASE + number * 20 * MIB, 20 * MIB, [block(where, 20 * MIB, 20 * MIB)], segment_pool_id=pool, is_expandable=True)
        for number, pool in enumerate([(0, 1), (0, 1), (0, 2)])
    ]
    data = snapshots.snapshot(rows, [[]])
    data["allocator_settings"]["expandable_segments"] = True
    recording = to_recording(read_snapshot(write(tmp_path / "a.pickle", data)))

    written = snapshot_of(recording)["segments"]

    assert [(row["segment_pool_id"], row["total_size"]) for row in written] == [((0, 1), 40 * MIB), ((0, 2), 20 * MIB)]


@pytest.mark.parametrize("expandable", [False, True])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs, pools=st.lists(st.integers(0, 3), min_size=1, max_size=7), cut=st.floats(0, 1))
def test_the_replay_of_an_export_equals_that_of_the_original(
    expandable: bool, program: Program, pools: list[int], cut: float, tmp_path: Path
) -> None:
    machine = Machine(AllocatorConfig(expandable_segments=expandable))
    for number, (action, amount, stream) in enumerate(program):
        if action in ("alloc", "free"):  # of segments that are gone no snapshot tells the pool; recordings know no older pending frees
            machine.step(action, amount, with_pool(stream, pools[number % len(pools)]))
    original = read_snapshot(write(tmp_path / "original.pickle", _snapshot_of_machine(machine, cut, expandable=expandable)))
    if not original.segments:
        return

    recording = to_recording(original)
    again = _again(recording, tmp_path)

    [before], [after] = replayable(original), replayable(again)
    assert (after.start, after.final) == (before.start, before.final)
    assert after.trace.stream.tolist() == before.trace.stream.tolist()
    kept, back = recorded(recording), recorded(to_recording(again))
    assert replay(back.trace, back.config, start=back.start).stats == replay(kept.trace, kept.config, start=kept.start).stats
    assert _replayed(after).stats == _replayed(before).stats
    assert _replayed(before).stats.reserved_bytes == machine.allocator.stats.reserved_bytes


def _replayed(device: DeviceReplay) -> Replay:
    return replay(device.trace, device.config, start=device.start)


def _snapshot_of_machine(machine: Machine, cut: float, *, expandable: bool) -> dict[str, Any]:
    """Return the snapshot at the end of a program, whose history begins late; pools are shown as torch shows them."""
    first = int(cut * len(machine.rows))
    history = [
        {"action": _ACTION_OF_KIND[kind], "addr": key, "size": size, "stream": without_pool(stream), "time_us": START + place, "frames": []}
        for place, (kind, key, size, stream) in enumerate(machine.rows[first:])
    ]
    return snapshots.snapshot([_segment(found, expandable=expandable) for found in machine.state()], [history]) | {
        "allocator_settings": {"expandable_segments": expandable}
    }


def _segment(found: SegmentState, *, expandable: bool) -> dict[str, Any]:
    pool = pool_of(found.stream)
    return segment(
        found.address,
        found.bytes,
        [block(row.address, row.bytes, row.requested_bytes, row.status.value) for row in found.blocks],
        stream=without_pool(found.stream),
        segment_type="small" if found.is_small else "large",
        segment_pool_id=(0, pool),
        is_expandable=expandable,
    )

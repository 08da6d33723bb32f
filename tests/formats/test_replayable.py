"""Snapshots made by hand -> what is replayed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from profiler.allocator.private_pools import FACT, PoolRange, recorded_pools
from profiler.allocator.recorded import recorded
from profiler.allocator.replay import replay
from profiler.allocator.trace import Trace
from profiler.allocator.verify import verify
from profiler.analysis.segment_map import block_numbers, simulated_map
from profiler.analysis.timeline import Timeline
from profiler.formats.convert import to_recording
from profiler.formats.ranks import merge_ranks
from profiler.formats.replayable import replayable
from profiler.formats.snapshot import read_snapshot
from profiler.storage import read_recording, write_recording
from profiler.units import MIB
from tests.builders import metadata

BASE = 0x7F00_0000_0000


def event(action: str, offset: int, size: int, stream: int = 0) -> dict[str, Any]:
    return {"action": action, "addr": BASE + offset, "size": size, "stream": stream, "frames": [], "time_us": 1}


def segment(offset: int, size: int, *blocks: tuple[int, str], **fields: Any) -> dict[str, Any]:
    rows = []
    for number, (num_bytes, state) in enumerate(blocks):
        row = {"size": num_bytes, "requested_size": num_bytes, "state": state, "address": BASE + offset}
        rows.append(row if number == 0 else row | {"address": rows[-1]["address"] + rows[-1]["size"]})
    plain = {"device": 0, "address": BASE + offset, "total_size": size, "stream": 0, "segment_type": "large", "blocks": rows}
    return plain | fields


def write(path: Path, segments: list[dict[str, Any]], *traces: list[dict[str, Any]], **fields: Any) -> Path:
    path.write_bytes(pickle.dumps({"segments": segments, "device_traces": list(traces), **fields}))
    return path


def test_each_device_is_replayed_on_its_own(tmp_path: Path) -> None:
    segments = [
        segment(0, 20 * MIB, (8 * MIB, "active_allocated"), (12 * MIB, "inactive")),
        segment(0, 30 * MIB, (30 * MIB, "active_allocated"), device=1),
    ]
    history = [event("segment_alloc", 0, 20 * MIB), event("alloc", 0, 8 * MIB)]
    first, second = replayable(read_snapshot(write(tmp_path / "two.pickle", segments, history, [])))
    assert (first.device, second.device) == (0, 1)
    assert (first.start, len(first.trace), len(second.trace)) == ((), 2, 0)
    assert second.start == second.final
    assert verify(first.trace, first.start, first.final, first.config).is_exact


def test_a_private_pool_is_a_stream_of_its_own(tmp_path: Path) -> None:
    segments = [
        segment(0, 20 * MIB, (20 * MIB, "inactive"), segment_pool_id=(0, 0)),
        segment(64 * MIB, 20 * MIB, (8 * MIB, "active_allocated"), (12 * MIB, "inactive"), segment_pool_id=(0, 3)),
    ]
    [found] = replayable(read_snapshot(write(tmp_path / "graph.pickle", segments, [event("alloc", 64 * MIB, 8 * MIB)])))
    assert [pool[2:] for pool in found.private_pools] == [(BASE + 64 * MIB, 20 * MIB, 1)]
    assert len({state.stream for state in found.final}) == 2
    assert verify(found.trace, found.start, found.final, found.config).is_exact


def two_pools(tmp_path: Path) -> Path:
    """A segment of a private pool is free when 18 MiB are asked for outside of it: that takes a segment more."""
    segments = [
        segment(0, 20 * MIB, (20 * MIB, "inactive"), segment_pool_id=(0, 3)),
        segment(64 * MIB, 18 * MIB, (18 * MIB, "active_allocated"), segment_pool_id=(0, 0)),
    ]
    history = [event("alloc", 0, 8 * MIB), event("free_requested", 0, 8 * MIB), event("free_completed", 0, 8 * MIB)]
    history += [event("segment_alloc", 64 * MIB, 18 * MIB), event("alloc", 64 * MIB, 18 * MIB)]
    return write(tmp_path / "graph.pickle", segments, history)


def test_a_kept_recording_is_replayed_with_its_private_pools(tmp_path: Path) -> None:
    path = two_pools(tmp_path)
    write_recording(to_recording(read_snapshot(path)), tmp_path / "kept.headroom")
    kept = read_recording(tmp_path / "kept.headroom")

    found, [direct] = recorded(kept), replayable(read_snapshot(path))

    assert found.trace.stream.tolist() == [1 << 50] * 3 + [0]
    assert [state.stream for state in found.start] == [state.stream for state in direct.start]
    assert set(kept.events["stream"].to_pylist()) == set(kept.segments["stream"].to_pylist()) == {0}
    assert replay(found.trace, found.config, start=found.start).stats.peak_reserved_bytes == 38 * MIB
    shown = simulated_map(timeline := Timeline.of(kept), block_numbers(kept, timeline), Trace.from_recording(kept), found.config, 3)
    assert [(segment.bytes, segment.stream) for segment in shown.segments] == [(20 * MIB, 0), (18 * MIB, 0)]


def test_private_pools_stay_with_their_rank(tmp_path: Path) -> None:
    plain = [segment(0, 20 * MIB, (20 * MIB, "inactive"))]
    first = to_recording(read_snapshot(write(tmp_path / "a.pickle", plain, [event("alloc", 0, 8 * MIB)] * 0)))
    merged = merge_ranks({0: first, 3: to_recording(read_snapshot(two_pools(tmp_path)))}, "both")

    assert recorded_pools(merged.metadata, 0, 0) == []
    assert recorded_pools(merged.metadata, 0, 3) == [PoolRange(0, 3, BASE, 20 * MIB, 1)]


@pytest.mark.parametrize(
    "fact",
    [7, [7], [{}], [{"device": 0, "rank": 0, "address": "x", "bytes": 1, "pool": 1}], [PoolRange(0, 0, 0, 1, 2**20)._asdict()]],
)
def test_what_names_no_private_pool_is_left_out(fact: Any) -> None:
    assert recorded_pools(metadata(facts={FACT: fact}), 0, 0) == []


def test_segments_without_addresses_are_laid_out_one_after_another(tmp_path: Path) -> None:
    rows = [segment(0, 20 * MIB, (8 * MIB, "active_allocated"), (12 * MIB, "inactive")) for _ in range(2)]
    for row in rows:
        del row["address"]
        for block in row["blocks"]:
            del block["address"]
    [found] = replayable(read_snapshot(write(tmp_path / "old.pickle", rows, [])))
    assert [[block.bytes // MIB for block in state.blocks] for state in found.start] == [[8, 12], [8, 12]]
    assert found.start[0].end <= found.start[1].address


def test_the_settings_of_the_snapshot_are_replayed(tmp_path: Path) -> None:
    settings = {"expandable_segments": True, "max_split_size": -1, "roundup_power2_divisions": {"1": 4}}
    history = [event("segment_map", 0, 20 * MIB), event("alloc", 0, 19 * MIB)]
    segments = [segment(0, 20 * MIB, (19 * MIB, "active_allocated"), (1 * MIB, "inactive"), is_expandable=True)]
    [found] = replayable(read_snapshot(write(tmp_path / "pages.pickle", segments, history, allocator_settings=settings)))
    assert found.config.expandable_segments
    assert found.config.roundup_power2_divisions[0] == 4
    assert verify(found.trace, found.start, found.final, found.config).is_exact

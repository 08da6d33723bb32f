"""Recordings as CUDA snapshots: PyTorch's own tools read them, and reading them back gives what was written."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.allocator.verify import verify
from profiler.analysis.blocks import Blocks
from profiler.analysis.categories import CATEGORIES
from profiler.analysis.timeline import Timeline
from profiler.errors import StorageError
from profiler.formats.convert import to_recording
from profiler.formats.export_snapshot import snapshot_of, write_snapshot
from profiler.formats.perfetto import Counter, write_trace
from profiler.formats.replayable import replayable
from profiler.formats.snapshot import Snapshot, read_snapshot
from profiler.recording import Category, Recording
from tests.builders import synthetic_recording
from tests.formats.conftest import SNAPSHOTS
from tests.formats.snapshots import training, write


@pytest.fixture(scope="module")
def host_recording() -> Recording:
    return synthetic_recording(2_000)


def _back(recording: Recording, tmp_path: Path, **options: Any) -> Snapshot:
    write_snapshot(recording, tmp_path / "out.pickle", **options)
    return read_snapshot(tmp_path / "out.pickle")


@pytest.mark.parametrize("row", SNAPSHOTS, ids=lambda row: row["file"])
def test_what_was_imported_comes_out_as_it_was(row: dict[str, Any], recordings: Path, tmp_path: Path) -> None:
    original = read_snapshot(recordings / row["file"])

    written = _back(to_recording(original), tmp_path)

    for before, after in zip(original.devices, written.devices, strict=True):
        kept = before.actions != 8  # the dump's own mark
        for name in ("actions", "addresses", "sizes", "streams", "times_us"):
            if getattr(before, name) is not None:
                np.testing.assert_array_equal(getattr(before, name)[kept], getattr(after, name)[: kept.sum()], err_msg=name)
        texts = [
            [read.stack_text(stack) if stack >= 0 else "" for stack in h.stacks.tolist()]
            for read, h in ((original, before), (written, after))
        ]
        assert texts[0] == texts[1] or not kept.all()


@pytest.mark.parametrize("row", SNAPSHOTS, ids=lambda row: row["file"])
def test_the_allocator_decides_on_an_export_as_on_the_original(row: dict[str, Any], recordings: Path, tmp_path: Path) -> None:
    (device,) = replayable(_back(to_recording(read_snapshot(recordings / row["file"])), tmp_path))

    check = verify(device.trace, device.start, device.final, device.config)

    assert check.is_exact, check.first_difference
    assert check.stats.peak_reserved_bytes == row["facts"]["devices"][0]["peak_reserved"]


def test_blocks_without_an_allocator_are_put_where_one_would_have_put_them(host_recording: Recording, tmp_path: Path) -> None:
    (device,) = replayable(_back(host_recording, tmp_path))

    check = verify(device.trace, device.start, device.final, device.config)

    assert check.is_exact, check.first_difference
    assert check.num_allocs == host_recording.events["action"].to_pylist().count("alloc")


@pytest.mark.filterwarnings("ignore")
def test_pytorchs_own_tools_accept_it(host_recording: Recording, tmp_path: Path) -> None:
    from torch.cuda import _memory_viz

    write_snapshot(host_recording, tmp_path / "out.pickle", {0: "parameter"})
    raw = (tmp_path / "out.pickle").read_bytes()
    data = pickle.loads(raw)

    assert raw[:2] == b"\x80\x04"
    assert "segments:" in _memory_viz.segsum(data)
    assert "Device 0" in _memory_viz.trace(data)
    assert "MemoryViz.js" in _memory_viz.trace_plot(data)
    assert "MemoryViz.js" in _memory_viz.segment_plot(data)
    assert sum(len(trace) for trace in data["device_traces"]) > 2_000


def test_labels_reach_the_viewer(tmp_path: Path) -> None:
    recording = to_recording(read_snapshot(write(tmp_path / "a.pickle", training())))

    data = snapshot_of(recording, {1: "activation"})

    said = [(event["action"], event["user_metadata"]) for event in data["device_traces"][0] if event["user_metadata"]]
    assert said == [("alloc", "activation"), ("free_requested", "activation"), ("free_completed", "activation")]


def test_an_export_to_a_folder_that_is_not_there_says_so(host_recording: Recording, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        write_snapshot(host_recording, tmp_path / "none" / "out.pickle")


def test_a_trace_stacks_what_is_allocated(host_recording: Recording, tmp_path: Path) -> None:
    blocks = Blocks.of(host_recording)
    labels = [category.label for category in CATEGORIES]
    counter = Counter.of_blocks(
        "Host allocated", blocks.event_us, blocks.birth_event, blocks.death_event, blocks.bytes, labels, blocks.category
    )

    write_trace(host_recording, tmp_path / "t.json.gz", [counter])

    events = json.loads(gzip.decompress((tmp_path / "t.json.gz").read_bytes()))["traceEvents"]
    counts = [event for event in events if event["ph"] == "C"]
    assert len(counts) == blocks.num_events
    assert [sum(event["args"].values()) for event in counts] == Timeline.of(host_recording, blocks).total.tolist()
    assert Category.PARAMETER.label in counts[0]["args"]
    slices = [event for event in events if event["ph"] == "X"]
    assert {event["cat"] for event in slices} >= {"step", "phase"}
    assert all(event["dur"] >= 0 for event in slices)

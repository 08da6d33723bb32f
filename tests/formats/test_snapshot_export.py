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
from profiler.analysis.categories import CATEGORIES, CATEGORY_CODES
from profiler.analysis.timeline import Timeline
from profiler.errors import StorageError
from profiler.formats.convert import to_recording
from profiler.formats.export_snapshot import snapshot_of, write_snapshot
from profiler.formats.perfetto import Counter, write_trace
from profiler.formats.replayable import replayable
from profiler.formats.snapshot import Snapshot, read_snapshot
from profiler.recording import Category, Provenance, Recording
from profiler.storage import read_metadata, read_recording
from tests.builders import synthetic_recording
from tests.conftest import ROOT
from tests.formats.conftest import SNAPSHOTS
from tests.formats.snapshots import training, write

SAMPLES = [path for path in sorted((ROOT / "sample_traces").glob("*.headroom")) if read_metadata(path).provenance is Provenance.MEASURED]
"""Simulated recordings have no call stacks, on which most rules stand."""


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


def _at_peak(recording: Recording, *, hide: bool = False) -> dict[str, int]:
    """Return the bytes of each category when most was allocated."""
    blocks = Blocks.of(recording)
    total = Timeline.of(recording, blocks).total
    peak = int(np.argmax(total))
    alive = (blocks.birth_event <= peak) & (blocks.death_event > peak)
    return {CATEGORIES[code].name: int(blocks.bytes[alive & (blocks.category == code)].sum()) for code in np.unique(blocks.category[alive])}


def _agreement(recording: Recording, tmp_path: Path) -> float:
    """Return the share of the peak's bytes that get their true category back when the recording is exported without and read again."""
    births = recording.events.filter(np.isin(recording.events["action"].to_pylist(), ["alloc", "preexisting"]))
    roles, requested = births["roles"].to_numpy(), births["requested_bytes"].to_numpy()
    weights = requested[(roles & 1 != 0) & (requested > 0)].tolist()
    again = to_recording(_back(recording, tmp_path), parameter_bytes=weights)
    true, found = Blocks.of(recording), Blocks.of(again)
    sized = np.flatnonzero(true.bytes > 0)
    total = Timeline.of(recording, true).total
    peak = int(np.argmax(total))
    alive = sized[(true.birth_event[sized] <= peak) & (true.death_event[sized] > peak)]
    # Allocations of the history come back in their order; what is older is compared by category and size.
    order = {int(number): place for place, number in enumerate(np.flatnonzero(_is_alloc(again, found)))}
    own = np.flatnonzero(_is_alloc(recording, true) & (true.bytes > 0))
    partner = {int(block): list(order)[place] for place, block in enumerate(own)}
    agreed = sum(int(true.bytes[block]) for block in alive if block in partner and true.category[block] == found.category[partner[block]])
    older = [block for block in alive if block not in partner]
    older_found = np.flatnonzero(~_is_alloc(again, found))
    for code in CATEGORY_CODES.values():
        left = sorted(true.bytes[[block for block in older if true.category[block] == code]].tolist())
        right = sorted(found.bytes[older_found[found.category[older_found] == code]].tolist())
        agreed += (
            sum(
                min(512 * left.count(size) * -(-size // 512), 512 * right.count(-(-size // 512) * 512) * (-(-size // 512)))
                for size in set(left)
            )
            // 512
        )
    return agreed / int(true.bytes[alive].sum())


def _is_alloc(recording: Recording, blocks: Blocks) -> Any:
    return recording.events["action"].to_numpy(zero_copy_only=False)[blocks.birth_event] == "alloc"


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_our_own_recordings_get_their_categories_back_from_rules_alone(path: Path, tmp_path: Path) -> None:
    assert _agreement(read_recording(path), tmp_path) >= 0.9


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

"""What a replay of a recording begins with: the state it tells, or older blocks allocated first where it tells none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from profiler.allocator.recorded import recorded, torch_version_of
from profiler.allocator.replay import replay
from profiler.errors import SpecError
from profiler.formats.convert import to_recording
from profiler.formats.replayable import replayable
from profiler.formats.snapshot import read_snapshot
from profiler.recording import HOST
from tests.builders import metadata, small_training
from tests.formats.conftest import SNAPSHOTS, recordings

__all__ = ["recordings"]


@pytest.mark.parametrize("row", SNAPSHOTS or [{}], ids=lambda row: row.get("file", "none"))
def test_a_recording_of_a_real_snapshot_begins_as_the_snapshot_does(row, recordings) -> None:  # type: ignore[no-untyped-def]
    snapshot = read_snapshot(recordings / row["file"])
    (direct,) = replayable(snapshot)

    found = recorded(to_recording(snapshot), direct.device)

    assert found.knows_segments
    assert found.config == direct.config
    assert [(s.address, s.bytes, s.stream, s.is_small) for s in found.start] == [
        (s.address, s.bytes, s.stream, s.is_small) for s in direct.start
    ]
    own, other = (replay(r.trace, r.config, start=r.start, take_retries=True).stats for r in (found, direct))
    assert own == other


def test_a_recording_without_segments_begins_empty_with_its_older_blocks_first() -> None:
    found = recorded(small_training(), HOST)

    assert not found.knows_segments
    assert found.start == ()
    assert found.trace.bytes[0] == 400
    assert replay(found.trace, found.config).stats.peak_requested_bytes == 2_000


def test_rows_lead_back_to_the_events_of_the_recording() -> None:
    recording = small_training()

    found = recorded(recording, HOST)

    requested = recording.events["requested_bytes"].to_numpy()
    assert (requested[found.trace.source_row] == found.trace.bytes).all()


def test_a_device_that_is_not_there_has_no_requests() -> None:
    assert len(recorded(small_training(), 3).trace) == 0


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ({"facts": {"torch_version": [2, 6]}}, (2, 6)),
        ({"versions": {"torch": "2.4.1+cu121"}}, (2, 4)),
        ({"facts": {"torch_version": ["x", {}]}}, (2, 13)),
        ({"facts": {"torch_version": "2.6"}}, (2, 13)),
        ({}, (2, 13)),
    ],
)
def test_the_torch_version_is_what_the_recording_knows_of_it(fields, version) -> None:  # type: ignore[no-untyped-def]
    assert torch_version_of(metadata(**fields)) == version


def test_impossible_settings_in_a_recording_are_refused() -> None:
    recording = small_training()
    broken = replace(recording, metadata=replace(recording.metadata, facts={"allocator_settings": {"expandable_segments": "yes"}}))

    with pytest.raises(SpecError, match="expandable_segments"):
        recorded(broken, HOST)

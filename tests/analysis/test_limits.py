"""What is said of a replay's exactness, on recordings of which each has one reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from profiler.allocator.config import AllocatorConfig
from profiler.analysis.limits import limits_of_replay
from profiler.analysis.reserved import lane_trace
from profiler.analysis.timeline import Timeline
from profiler.recording import SEGMENTS, Recording
from tests import builders
from tests.builders import MIB
from tests.gpu_programs import run_on_gpu

PLAIN = run_on_gpu([("alloc", 4 * MIB, 0), ("free", 0, 0)]).recording


def said(recording: Recording, *, as_recorded: bool = False, on_a_card: bool = False) -> str:
    lane = Timeline.of(recording).lane
    return " ".join(
        limits_of_replay(
            recording,
            lane,
            lane_trace(recording, lane),
            knows_segments=len(recording.segments) > 0,
            as_recorded=as_recorded,
            on_a_card=on_a_card,
        )
    )


def test_nothing_is_said_of_a_history_that_begins_empty_on_no_card() -> None:
    assert said(PLAIN) == ""
    assert said(PLAIN, on_a_card=True).startswith("Out of memory is told to about 35 MiB")


def test_what_a_cpu_recording_lacks_is_said() -> None:
    assert "cuBLAS workspaces" in said(builders.small_training(), as_recorded=True)


@pytest.mark.parametrize(
    ("recording", "sentence"),
    [
        (run_on_gpu([("alloc", 4 * MIB, 0), ("free later", 0, 0)]).recording, "Frees that waited for another stream, 1 here"),
        (
            run_on_gpu([("alloc", 90 * MIB, 0), ("alloc", MIB, 0)], capacity_bytes=50 * MIB).recording,
            "Requests that ran out of memory as recorded, 1 here",
        ),
    ],
)
def test_what_trials_assume_is_said_of_them_alone(recording: Recording, sentence: str) -> None:
    assert sentence in said(recording)
    assert sentence not in said(recording, as_recorded=True)


def test_private_pools_are_said() -> None:
    pool = {"device": 0, "rank": 0, "address": 1 << 40, "bytes": 2 * MIB, "pool": 1}
    metadata = replace(PLAIN.metadata, facts={"private_pools": [pool]})

    assert "MemPool), 1 here" in said(replace(PLAIN, metadata=metadata), as_recorded=True)


def test_settings_that_changed_are_told_by_segments_of_both_kinds() -> None:
    pages = run_on_gpu([("alloc", 4 * MIB, 0)], AllocatorConfig(expandable_segments=True)).recording
    rows = [*PLAIN.segments.to_pylist(), *pages.segments.to_pylist()]
    both = replace(PLAIN, segments=type(PLAIN.segments).from_pylist(rows, schema=SEGMENTS))

    assert "the settings changed while the program ran" in said(both)
    assert "the settings changed" not in said(pages)

"""Why a recorded run ran out of memory: the replay of a recording that the allocator itself made on a small card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from profiler.allocator.out_of_memory import Unusable
from profiler.allocator.recorded import recorded
from profiler.allocator.recorded_ooms import RecordedOom, oom_facts
from profiler.allocator.replay import replay
from profiler.analysis.recorded_failure import RecordedFailure, explain_recorded_failure
from profiler.analysis.timeline import Timeline
from profiler.formats.convert import to_recording
from profiler.formats.snapshot import read_snapshot
from profiler.recording import SEGMENTS, Recording
from tests.builders import MIB
from tests.gpu_programs import run_on_gpu

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "recordings"
FRAGMENTED = [  # two segments of 20 MiB, half of each freed: 22 MiB are free in pieces of 11, 9 and 2
    *[("alloc", 9 * MIB, 0)] * 4,
    ("free", 1, 0),
    ("free", 1, 0),
    ("alloc", 18 * MIB, 0),
]


def failed_on(capacity_mib: int, program: list[Any], requested_mib: int, free_mib: int | None) -> Recording:
    """Return the recording of a program that ran out of memory, with what the driver had left where that is known."""
    facts = oom_facts([RecordedOom(0, requested_mib * MIB, None if free_mib is None else free_mib * MIB)])
    return run_on_gpu(program, capacity_bytes=capacity_mib * MIB, facts=facts).recording


def explained(recording: Recording) -> RecordedFailure:
    found = explain_recorded_failure(recording, Timeline.of(recording))
    assert found is not None
    return found


def test_a_recorded_error_is_explained_on_the_card_that_it_implies() -> None:
    found = explained(failed_on(50, FRAGMENTED, 18, 10))
    why = found.explanation

    assert (found.reserved_bytes, found.device_free_bytes, found.capacity_bytes) == (40 * MIB, 10 * MIB, 50 * MIB)
    assert found.facts["event"] == 7, "four births, and two frees of two rows each"
    assert why is not None
    assert (why.requested_bytes, why.segment_bytes, why.largest_free_bytes) == (18 * MIB, 18 * MIB, 11 * MIB)
    assert {share.why: share.bytes for share in why.unusable} == {Unusable.TOO_SMALL: 22 * MIB}
    assert why.smallest_capacity_bytes == 58 * MIB
    [pages] = [trial for trial in why.remedies if trial.name == "expandable_segments:True"]
    assert pages.peak_reserved_bytes == 40 * MIB, "the two holes touch and hold 18 MiB"


def test_a_driver_that_had_nothing_left_is_not_one_that_nothing_is_known_of() -> None:
    nothing, unknown = (explained(failed_on(40, FRAGMENTED, 18, free)) for free in (0, None))

    assert (nothing.device_free_bytes, unknown.device_free_bytes) == (0, None)
    assert "the driver had 0 B free: the recording implies 40.0 MiB" in nothing.sentences()[0]
    assert "the recording does not say what the driver had free" in unknown.sentences()[0]
    assert nothing.capacity_bytes == unknown.capacity_bytes == 40 * MIB, "the least that it can have been"


def test_what_is_said_names_what_the_recording_implies() -> None:
    said = " ".join(explained(failed_on(50, FRAGMENTED, 18, 10)).sentences())

    assert "40.0 MiB were reserved and the driver had 10.0 MiB free: the recording implies 50.0 MiB for the allocator" in said
    assert "what else was on the card counts as taken" in said
    assert "With expandable_segments:True it passes on this card and reserves 40.0 MiB." in said


def test_an_error_that_was_survived_is_no_reason_for_the_last_one() -> None:
    program = [("alloc", 90 * MIB, 0), *FRAGMENTED]
    found = explained(failed_on(50, program, 18, 10))

    assert found.num_failures == 2
    assert found.explanation is not None
    assert found.explanation.requested_bytes == 18 * MIB
    assert "expandable_segments:True" in [trial.name for trial in found.explanation.remedies]


def test_what_was_given_back_to_make_room_is_given_back_in_the_replay_too() -> None:
    program = [("alloc", 30 * MIB, 0), ("free", 0, 0), ("alloc", 60 * MIB, 0)]
    found = explained(failed_on(50, program, 60, 50))

    assert (found.reserved_bytes, found.capacity_bytes) == (0, 50 * MIB)
    assert found.explanation is not None
    assert found.explanation.remedies == []


@pytest.mark.parametrize(
    ("free_mib", "sentence"),
    [(20, "the request passes: what made it fail is not in the recording"), (10, None)],
)
def test_a_replay_that_does_not_fail_is_not_explained(free_mib: int, sentence: str | None) -> None:
    found = explained(failed_on(50, FRAGMENTED, 18, free_mib))

    assert (found.explanation is None) == (sentence is not None)
    assert (sentence or "passes on this card") in " ".join(found.sentences())


def test_a_card_that_had_more_room_before_is_said() -> None:
    """60 MiB were reserved once and given back; when the error came, all but 10 MiB beside the 20 MiB reserved were taken."""
    program = [("alloc", 60 * MIB, 0), ("free", 0, 0), ("empty cache", 0, 0), ("alloc", 20 * MIB, 0), ("alloc", 90 * MIB, 0)]
    found = explained(failed_on(80, program, 90, 10))

    assert found.capacity_bytes == 30 * MIB
    assert found.explanation is None
    assert "memory runs out at an earlier request" in found.caveat


def test_a_recording_of_another_device_says_nothing_of_what_was_free() -> None:
    recording = failed_on(50, FRAGMENTED, 18, 10)
    other = replace(recording, metadata=replace(recording.metadata, facts=oom_facts([RecordedOom(1, 18 * MIB, 10 * MIB)])))

    assert explained(other).capacity_bytes == 40 * MIB


def test_a_run_that_passed_has_no_failure() -> None:
    recording = failed_on(60, FRAGMENTED, 18, 10)

    assert explain_recorded_failure(recording, Timeline.of(recording)) is None


@pytest.mark.parametrize("file", ["niu_train_ctx100.pickle", "wedsonlin_medium_ctx128_train.pickle"])
def test_a_real_history_that_ends_in_an_error_is_explained_just_there(file: str) -> None:
    """A request too many at the end of a real history: what it makes the allocator give back is recorded before the error, as torch does.

    The second file's history begins with segments that are older.
    """
    if not (FOLDER / file).is_file():
        pytest.skip("the shared recordings are not beside this checkout")
    recording = to_recording(read_snapshot(FOLDER / file))
    found, requested, free = recorded(recording), 2**40, 2**30
    run = replay(found.trace, found.config, start=found.start, take_retries=True)
    given_back: list[dict[str, Any]] = []
    run.allocator.on_segment = lambda action, address, size, _: given_back.append({"action": action, "address": address, "bytes": size})
    run.allocator.empty_cache()
    place = {"time_us": recording.events["time_us"].to_pylist()[-1], "device": 0, "rank": 0, "stream": 0}
    rows = [{**place, **row} for row in (*given_back, {"action": "oom", "bytes": requested})]
    segments = pa.concat_tables([recording.segments, pa.Table.from_pylist(rows, schema=SEGMENTS)])
    metadata = replace(recording.metadata, facts=recording.metadata.facts | oom_facts([RecordedOom(0, requested, free)]))
    failure = explained(replace(recording, segments=segments, metadata=metadata))

    held = run.allocator.stats
    assert failure.explanation is not None
    assert (failure.reserved_bytes, failure.explanation.reserved_bytes) == (held.reserved_bytes, held.reserved_bytes)
    assert failure.explanation.allocated_bytes == held.allocated_bytes
    assert failure.explanation.requested_bytes == requested

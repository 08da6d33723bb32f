"""Timelines: exact totals, the peak, categories that sum, and a reduction that keeps the peak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.blocks import Lane
from profiler.analysis.timeline import Timeline
from profiler.recording import EVENTS, Action, Category, Phase, Recording, Role
from tests.analysis.histories import recordings
from tests.builders import Tape, metadata, small_training, synthetic_recording


def _totals_by_hand(recording: Recording) -> list[int]:
    """Replay the rows one by one, as slowly and plainly as can be."""
    alive: dict[int, int] = {}
    totals = []
    for row in recording.events.to_pylist():
        if row["action"] in (Action.ALLOC, Action.PREEXISTING):
            alive[row["block"]] = row["requested_bytes"] if row["block_bytes"] is None else row["block_bytes"]
        else:
            alive.pop(row["block"], None)
        totals.append(sum(alive.values()))
    return totals


@given(recordings())
def test_the_total_is_what_a_plain_replay_gives_at_every_event(recording: Recording) -> None:
    assert Timeline.of(recording).total.tolist() == _totals_by_hand(recording)


@given(recordings())
def test_categories_sum_to_the_total_at_every_event(recording: Recording) -> None:
    timeline = Timeline.of(recording)
    rows = np.arange(timeline.num_events)

    series = timeline.by_category(rows)

    assert np.array_equal(sum(series.values(), np.zeros(len(rows), np.int64)), timeline.total)
    for event in rows:
        assert timeline.categories_at(event) == {c: int(v[event]) for c, v in series.items() if v[event]}


@given(recordings(), st.integers(8, 30), st.sampled_from(["time", "event"]))
def test_reduction_keeps_the_peak_the_ends_and_the_limit(recording: Recording, max_points: int, axis: str) -> None:
    timeline = Timeline.of(recording)

    picked = timeline.pick_rows(max_points, axis=axis)

    assert len(picked.rows) <= max_points
    assert (np.diff(picked.rows) > 0).all()
    if timeline.num_events:
        assert timeline.total[picked.rows].max() == timeline.total.max()
        assert {0, timeline.num_events - 1, timeline.peak_event} <= set(picked.rows.tolist())


def test_the_peak_of_a_training_is_where_the_hand_count_says() -> None:
    timeline = Timeline.of(small_training())

    peak = timeline.at(timeline.peak_event)

    assert (peak.allocated_bytes, peak.step, peak.phase) == (2000, 1, Phase.BACKWARD)
    assert timeline.categories_at(peak.event) == {
        Category.PARAMETER: 400,
        Category.GRADIENT: 400,
        Category.OPTIMIZER_STATE: 800,
        Category.ACTIVATION: 200,
        Category.LOGITS: 100,
        Category.ACTIVATION_GRADIENT: 60,
        Category.INPUT: 40,
    }


def test_warm_up_steps_and_what_came_before_do_not_count_for_the_peak() -> None:
    tape = Tape()
    tape.free(tape.alloc(1000))
    for step, size in enumerate((500, 10, 20)):
        with tape.step(step):
            tape.free(tape.alloc(size))

    assert Timeline.of(tape.recording(warmup_steps=1)).peak_bytes == 20
    assert Timeline.of(tape.recording(warmup_steps=0)).peak_bytes == 500


def test_where_no_step_counts_the_whole_recording_does() -> None:
    tape = Tape()
    tape.free(tape.alloc(1000))
    with tape.step(0):
        tape.alloc(1)

    assert Timeline.of(tape.recording(warmup_steps=5)).peak_bytes == 1000


def test_each_lane_has_its_own_total_and_the_first_gpu_is_shown() -> None:
    tape = Tape()
    tape.alloc(1, device=-1)
    tape.alloc(10, device=0)
    tape.alloc(100, device=1)
    recording = tape.recording()

    assert Timeline.of(recording).total.tolist() == [0, 10, 10]
    assert Timeline.of(recording, lane=Lane(-1, 0)).total.tolist() == [1, 1, 1]


def test_the_nearest_event_is_the_one_whose_state_holds() -> None:
    tape = Tape()
    for _ in range(3):
        tape.alloc(1)
    timeline = Timeline.of(tape.recording())

    assert [timeline.nearest_event(time_us) for time_us in (-5, 0, 9.9, 10, 1e9)] == [0, 0, 0, 1, 2]


def test_a_window_counts_only_its_own_events() -> None:
    timeline = Timeline.of(synthetic_recording(5_000))

    picked = timeline.pick_rows(100, start=1_000, end=3_000)

    assert picked.num_events == 2_000
    assert picked.statement == f"showing {len(picked.rows)} of 2,000 events, peak exact"
    assert (picked.rows[0], picked.rows[-1]) == (1_000, 2_999)
    assert timeline.total[picked.rows].max() == timeline.total[1_000:3_000].max()


def test_a_recording_without_events_has_an_empty_timeline() -> None:
    timeline = Timeline.of(Recording(metadata=metadata(), events=EVENTS.empty_table()))

    assert (timeline.peak_bytes, timeline.peak_event, len(timeline.pick_rows().rows)) == (0, -1, 0)
    assert timeline.by_category(timeline.pick_rows().rows) == {}
    with pytest.raises(IndexError):
        timeline.at(0)


def test_large_sizes_stay_exact() -> None:
    tape = Tape()
    for _ in range(3):
        tape.alloc(2**53 + 1, roles=Role.PARAMETER)

    timeline = Timeline.of(tape.recording())

    assert timeline.by_category(np.array([2]))[Category.PARAMETER].tolist() == [3 * (2**53 + 1)]

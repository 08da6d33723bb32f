"""Reserved memory over time: as recorded, and as simulated, against the allocator that made the recording."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.state import active_bytes, reserved_bytes
from profiler.analysis.blocks import Lane
from profiler.analysis.reserved import lane_trace, recorded_reserved, simulated_reserved
from profiler.analysis.timeline import Timeline
from profiler.recording import Action, Provenance, Recording
from tests.allocator.programs import SETTINGS, Program, programs
from tests.builders import MIB, Tape
from tests.gpu_programs import run_on_gpu

KEPT = tuple(config for config in SETTINGS if config.memory_fraction is None)
STEPS: Program = [
    ("alloc", 4 * MIB, 0),
    ("alloc", 30 * MIB, 0),
    ("free", 0, 0),
    ("alloc", 3 * MIB, 0),
    ("free", 0, 0),
    ("empty cache", 0, 0),
]


def cpu_training() -> Recording:
    tape = Tape()
    tape.preexisting(12 * MIB)
    gone = tape.alloc(6 * MIB)
    tape.free(gone)
    tape.alloc(15 * MIB)
    return tape.recording()


def test_reserved_is_the_running_sum_of_the_recorded_segments() -> None:
    recording = run_on_gpu(STEPS).recording
    series = recorded_reserved(recording, Timeline.of(recording))

    assert series is not None
    assert series.provenance is Provenance.IMPORTED
    # 4 MiB takes a segment of 20, 30 MiB one of its own; 3 MiB finds room in the first; empty_cache gives the 30 back.
    assert series.reserved_bytes.tolist() == [n * MIB for n in (20, 20, 50, 50, 50, 50, 50, 50, 50, 20)]
    assert series.peak_bytes == 50 * MIB
    assert series.changes["action"].tolist() == ["segment_alloc", "segment_alloc", "segment_free"]
    assert series.changes["reserved_bytes"].tolist() == [20 * MIB, 50 * MIB, 20 * MIB]


def test_the_fullest_point_is_the_one_at_the_peak_with_most_allocated() -> None:
    recording = run_on_gpu(STEPS).recording
    series = recorded_reserved(recording, Timeline.of(recording))

    assert series is not None
    assert (series.reserved_bytes[series.peak_row], series.allocated_bytes[series.peak_row]) == (50 * MIB, 4 * MIB)
    assert (series.reserved_bytes[series.fullest_row], series.allocated_bytes[series.fullest_row]) == (50 * MIB, 34 * MIB)
    assert series.external[series.fullest_row] == pytest.approx(1 - 34 / 50)


def test_a_block_that_waits_for_a_stream_is_active_and_not_allocated() -> None:
    recording = run_on_gpu([("alloc", 4 * MIB, 0), ("free later", 0, 0), ("alloc", 2 * MIB, 0), ("done", 0, 0)]).recording
    series = recorded_reserved(recording, Timeline.of(recording))

    assert series is not None
    assert (series.active_bytes - series.allocated_bytes).tolist() == [0, 0, 4 * MIB, 4 * MIB, 0]


@settings(max_examples=40)
@given(programs, st.sampled_from(KEPT))
def test_what_was_recorded_is_what_the_allocator_held(program: Program, config: AllocatorConfig) -> None:
    ran = run_on_gpu(program, config)
    timeline = Timeline.of(ran.recording)
    series = recorded_reserved(ran.recording, timeline)
    if series is None:
        assert not len(ran.recording.segments)
        return
    assert (series.allocated_bytes <= series.active_bytes).all()
    assert (series.active_bytes <= series.reserved_bytes).all()
    for event, state in ran.states:
        row = series.row_of(event)
        assert series.reserved_bytes[row] == reserved_bytes(state)
        assert series.active_bytes[row] == active_bytes(state)


@settings(max_examples=40)
@given(programs, st.sampled_from(KEPT))
def test_a_simulation_under_the_same_settings_is_what_was_recorded(program: Program, config: AllocatorConfig) -> None:
    # Whether cached segments that went back before a new one were asked for by the program, or made room, no history says.
    recording = run_on_gpu([step for step in program if step[0] != "empty cache"], config).recording
    timeline = Timeline.of(recording)
    recorded = recorded_reserved(recording, timeline)
    simulated = simulated_reserved(timeline, lane_trace(recording, timeline.lane), config)

    assert simulated.peak_bytes == (recorded.peak_bytes if recorded else 0)
    if recorded:
        assert simulated.changes["bytes"].tolist() == recorded.changes["bytes"].tolist()
        assert simulated.changes["action"].tolist() == recorded.changes["action"].tolist()


@settings(max_examples=40)
@given(programs, st.sampled_from(KEPT))
def test_driver_calls_add_up_to_reserved_at_every_step(program: Program, config: AllocatorConfig) -> None:
    recording = run_on_gpu(program).recording
    timeline = Timeline.of(recording)
    series = simulated_reserved(timeline, lane_trace(recording, timeline.lane), config)

    assert (series.allocated_bytes <= series.active_bytes).all()
    assert (series.active_bytes <= series.reserved_bytes).all()
    for row in range(len(series)):
        last = row + 1 < len(series) and series.event[row + 1] == series.event[row]
        before = series.changes[series.changes["event"] <= series.event[row]]
        if not last:
            assert series.reserved_bytes[row] == (before["reserved_bytes"].iloc[-1] if len(before) else 0)


def test_a_cpu_recording_is_simulated_with_its_events_in_place() -> None:
    recording = cpu_training()
    timeline = Timeline.of(recording)
    trace = lane_trace(recording, timeline.lane)
    default = simulated_reserved(timeline, trace, AllocatorConfig())
    pages = simulated_reserved(timeline, trace, AllocatorConfig(expandable_segments=True), "expandable_segments:True")

    assert recorded_reserved(recording, timeline) is None
    assert default.provenance is Provenance.SIMULATED
    assert default.event.tolist() == [0, 1, 2, 3]
    # 12 MiB is a segment of its own size, 6 MiB takes one of 20 and gives it back to the cache, where 15 MiB finds room.
    assert default.reserved_bytes.tolist() == [12 * MIB, 32 * MIB, 32 * MIB, 32 * MIB]
    # Pages of 20 MiB: 12 and 6 fit into one; 15 after the first 12 needs another.
    assert pages.reserved_bytes.tolist() == [20 * MIB, 20 * MIB, 20 * MIB, 40 * MIB]


def test_a_card_that_is_too_small_ends_the_series() -> None:
    recording = cpu_training()
    timeline = Timeline.of(recording)
    series = simulated_reserved(timeline, lane_trace(recording, timeline.lane), AllocatorConfig(), capacity_bytes=20 * MIB)

    assert series.failure is not None
    assert series.failure.cause.requested_bytes == 6 * MIB
    assert len(series) == 1


def test_each_rank_has_its_own_requests() -> None:
    tape = Tape(device=0)
    tape.alloc(4 * MIB, rank=0)
    tape.alloc(40 * MIB, rank=1)
    recording = tape.recording()

    for rank, peak in ((0, 20), (1, 40)):
        timeline = Timeline.of(recording, lane=Lane(0, rank))
        assert simulated_reserved(timeline, lane_trace(recording, timeline.lane), AllocatorConfig()).peak_bytes == peak * MIB


def test_a_recording_without_requests_has_an_empty_series() -> None:
    tape = Tape()
    tape.free(tape.alloc(0), Action.FREE_COMPLETED)
    recording = tape.recording()
    timeline = Timeline.of(recording)
    series = simulated_reserved(timeline, lane_trace(recording, timeline.lane), AllocatorConfig())

    assert (len(series), series.peak_bytes, series.peak_row, series.fullest_event, len(series.changes)) == (0, 0, -1, 0, 0)


def test_drawn_points_keep_both_peaks() -> None:
    rng = np.random.default_rng(0)
    tape = Tape()
    for _ in range(3_000):
        tape.free(tape.alloc(int(rng.integers(1, 40)) * MIB))
    recording = tape.recording()
    timeline = Timeline.of(recording)
    series = simulated_reserved(timeline, lane_trace(recording, timeline.lane), AllocatorConfig())
    rows = series.pick_rows(200)

    assert len(rows) <= 200
    assert series.reserved_bytes[rows].max() == series.peak_bytes
    assert series.allocated_bytes[rows].max() == series.allocated_bytes.max()
    assert series.table(rows)["external_fragmentation_share"].between(0, 1).all()

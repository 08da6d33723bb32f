"""Segments at an instant: recorded and simulated ones are what the allocator held, and what is drawn adds up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.state import BlockStatus, State
from profiler.analysis.reserved import lane_trace
from profiler.analysis.segment_map import SegmentMap, Use, block_numbers, recorded_map, simulated_map
from profiler.analysis.segment_view import Order, segment_pages
from profiler.analysis.timeline import Timeline
from tests.allocator.programs import SETTINGS, Program, programs
from tests.builders import MIB, Tape
from tests.gpu_programs import RecordedProgram, run_on_gpu

KEPT = tuple(config for config in SETTINGS if config.memory_fraction is None)


def held(state: State) -> set[tuple[int, int, bool]]:
    return {(block.address, block.bytes, block.status is BlockStatus.ALLOCATED) for segment in state for block in segment.active_blocks}


def held_in(found: SegmentMap) -> set[tuple[int, int, bool]]:
    return {
        (segment.address + piece.offset_bytes, piece.bytes, piece.use is Use.ALLOCATED)
        for segment in found.segments
        for piece in segment.pieces
        if piece.use is not Use.FREE
    }


def assert_tiled(found: SegmentMap) -> None:
    for segment in found.segments:
        here = 0
        for piece in segment.pieces:
            assert piece.offset_bytes == here
            here += piece.bytes
        assert here == segment.bytes
    assert found.reserved_bytes == sum(found.bytes_of(use) for use in Use)


def simulated(ran: RecordedProgram, config: AllocatorConfig, event: int) -> SegmentMap:
    timeline = Timeline.of(ran.recording)
    trace = lane_trace(ran.recording, timeline.lane)
    return simulated_map(timeline, block_numbers(ran.recording, timeline), trace, config, event)


@settings(max_examples=40)
@given(programs, st.sampled_from(KEPT), st.data())
def test_the_recorded_map_is_what_the_allocator_held(program: Program, config: AllocatorConfig, data: st.DataObject) -> None:
    ran = run_on_gpu(program, config)
    timeline = Timeline.of(ran.recording)
    if not ran.states:
        return
    event, state = data.draw(st.sampled_from(ran.states))
    found = recorded_map(ran.recording, timeline, event)

    assert held_in(found) == held(state)
    assert_tiled(found)
    assert found.reserved_bytes == sum(segment.bytes for segment in state)
    for segment in found.segments:
        for piece in segment.pieces:
            assert piece.place < 0 or timeline.blocks.bytes[piece.place] == piece.bytes


@settings(max_examples=40)
@given(programs, st.sampled_from(KEPT), st.data())
def test_a_simulated_map_holds_what_is_alive(program: Program, config: AllocatorConfig, data: st.DataObject) -> None:
    ran = run_on_gpu(program)
    timeline = Timeline.of(ran.recording)
    if not timeline.num_events:
        return
    event = data.draw(st.integers(0, timeline.num_events - 1))
    found = simulated(ran, config, event)

    assert_tiled(found)
    alive = {piece.place for segment in found.segments for piece in segment.pieces if piece.use is Use.ALLOCATED}
    assert alive == set(timeline.alive(event).tolist())


def test_pages_that_touch_are_one_segment_and_pages_given_back_cut_it() -> None:
    config = AllocatorConfig(expandable_segments=True)
    ran = run_on_gpu([("alloc", 19 * MIB, 0), ("alloc", 19 * MIB, 0), ("alloc", 19 * MIB, 0)], config)
    timeline = Timeline.of(ran.recording)
    grown = recorded_map(ran.recording, timeline, timeline.num_events - 1)

    [segment] = grown.segments
    assert segment.is_expandable
    assert (segment.bytes, segment.free_bytes, segment.largest_free_bytes) == (60 * MIB, 3 * MIB, 3 * MIB)
    middle = [("free", 1, 0), ("empty cache", 0, 0), ("alloc", 512, 0)]
    ran = run_on_gpu([("alloc", 20 * MIB, 0)] * 3 + middle, config)  # type: ignore[operator]
    cut = recorded_map(ran.recording, Timeline.of(ran.recording), len(ran.recording.events) - 1)
    assert [s.bytes for s in cut.segments if not s.is_small] == [20 * MIB, 20 * MIB]


def test_a_replay_that_ran_out_of_memory_before_the_instant_says_so() -> None:
    ran = run_on_gpu([("alloc", 30 * MIB, 0), ("alloc", 30 * MIB, 0)])
    timeline = Timeline.of(ran.recording)
    numbers, trace = block_numbers(ran.recording, timeline), lane_trace(ran.recording, timeline.lane)
    found = simulated_map(timeline, numbers, trace, AllocatorConfig(), 1, capacity_bytes=40 * MIB)

    assert found.failure is not None
    assert found.reserved_bytes == 30 * MIB


def crowded(num_segments: int, num_small: int = 0) -> SegmentMap:
    """A map of segments of 20 MiB with ten blocks of 2 MiB, every other one free, and of one small one with many."""
    tape = Tape()
    for _ in range(num_segments):
        blocks = [tape.alloc(2 * MIB) for _ in range(10)]
        for block in blocks[::2]:
            tape.free(block)
        blocks = [tape.alloc(2 * MIB) for _ in range(5)]
    small = [tape.alloc(512) for _ in range(num_small)]
    for block in small[::2]:
        tape.free(block)
    recording = tape.recording()
    timeline = Timeline.of(recording)
    trace = lane_trace(recording, timeline.lane)
    return simulated_map(timeline, block_numbers(recording, timeline), trace, AllocatorConfig(), timeline.num_events - 1)


def test_what_is_not_drawn_is_counted_and_summed() -> None:
    state = crowded(50)
    first, second = segment_pages(state, "large", max_segments=40)

    assert (len(first.segments), len(second.segments)) == (40, 10)
    assert first.rest_bytes == 10 * 20 * MIB
    assert first.statement == "40 of 50 segments, 1 to 40 in this order; the other 10 hold 200 MiB, 0 B of them free"
    assert second.statement == "10 of 50 segments, 41 to 50 in this order; the other 40 hold 800 MiB, 0 B of them free"
    [empty] = segment_pages(state, "small")
    assert (empty.num_segments, empty.segments) == (0, ())


@pytest.mark.parametrize("max_pieces", [30, 200, 2_000])
def test_a_map_never_has_more_rectangles_than_it_may(max_pieces: int) -> None:
    state = crowded(50)
    pages = segment_pages(state, "large", max_pieces=max_pieces)

    for page in pages:
        assert page.num_pieces <= max_pieces
        assert sum(segment.bytes for segment in page.segments) + page.rest_bytes == 50 * 20 * MIB
    drawn = [segment.address for page in pages for segment in page.segments]
    assert sorted(drawn) == [segment.address for segment in state.segments]
    assert [page.first for page in pages] == [sum(len(page.segments) for page in pages[:place]) for place in range(len(pages))]


def test_thin_neighbours_are_drawn_as_one_and_keep_their_bytes() -> None:
    state = crowded(0, num_small=3_000)
    [segment] = [segment for segment in state.segments if segment.is_small]
    [view] = segment_pages(state, "small", max_pieces=2_000)

    [drawn] = view.segments
    assert len(segment.pieces) > 2_000 >= len(drawn.pieces)
    assert view.is_joined
    assert "thin neighbours are drawn as one" in view.statement
    assert sum(piece.num_blocks for piece in drawn.pieces) == len(segment.pieces)
    assert sum(piece.allocated_bytes for piece in drawn.pieces) == state.bytes_of(Use.ALLOCATED)
    assert drawn.pieces[0].use is Use.SEVERAL


@pytest.mark.parametrize(("order", "sizes"), [("size", [40, 30, 24]), ("free", [30, 24, 40]), ("address", [24, 40, 30])])
def test_segments_come_in_the_order_that_was_asked_for(order: Order, sizes: list[int]) -> None:
    tape = Tape()
    tape.alloc(24 * MIB)
    tape.alloc(40 * MIB)
    gone = tape.alloc(30 * MIB)
    tape.free(gone)
    recording = tape.recording()
    timeline = Timeline.of(recording)
    trace = lane_trace(recording, timeline.lane)
    state = simulated_map(timeline, block_numbers(recording, timeline), trace, AllocatorConfig(), 3)
    [view] = segment_pages(state, "large", order)

    assert [segment.bytes // MIB for segment in view.segments] == sizes

"""The block view: drawn and rest together are the total, rectangles do not overlap, addresses lose only their holes."""

from __future__ import annotations

import itertools
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis import layout
from profiler.analysis.layout import has_addresses, layout_of
from profiler.analysis.timeline import Timeline
from profiler.analysis.view import view_blocks
from profiler.recording import EVENTS, Recording
from tests.analysis.histories import recordings
from tests.builders import Tape, metadata, synthetic_recording


@given(recordings(), st.integers(1, 50), st.sampled_from(["time", "event"]))
def test_drawn_and_rest_hold_the_peak_between_them(recording: Recording, max_blocks: int, axis: str) -> None:
    timeline = Timeline.of(recording)

    view = view_blocks(timeline, axis=axis, max_blocks=max_blocks)

    assert len(view.rows) <= max_blocks
    drawn = np.zeros(timeline.num_events + 1, np.int64)
    blocks = timeline.blocks
    np.add.at(drawn, blocks.birth_event[view.rows], blocks.bytes[view.rows])
    np.subtract.at(drawn, blocks.death_event[view.rows], blocks.bytes[view.rows])
    rest = timeline.total - np.cumsum(drawn)[:-1]
    assert (rest >= 0).all()
    if axis == "event":
        assert view.rest_peak_bytes == max(rest, default=0)


@given(recordings())
def test_stacked_blocks_never_overlap_and_stay_under_the_height(recording: Recording) -> None:
    timeline = Timeline.of(recording)

    view = view_blocks(timeline)

    tops = view.bottom + timeline.blocks.bytes[view.rows]
    assert (tops <= view.height_bytes).all()
    for i, j in itertools.combinations(range(len(view.rows)), 2):
        together = view.left[i] < view.right[j] and view.left[j] < view.right[i]
        assert not (together and view.bottom[i] < tops[j] and view.bottom[j] < tops[i])


def test_first_fit_reuses_the_lowest_hole_that_is_large_enough() -> None:
    tape = Tape()
    first, _second = tape.alloc(10), tape.alloc(10)
    tape.free(first)
    tape.alloc(4)
    tape.alloc(6)
    tape.alloc(1)

    view = view_blocks(Timeline.of(tape.recording()))

    assert view.bottom.tolist() == [0, 10, 0, 4, 20]
    assert view.height_bytes == 21


def test_addresses_keep_their_order_and_lose_the_holes_that_nothing_ever_used() -> None:
    tape = Tape()
    tape.alloc(100, address=5_000_000)
    tape.alloc(50, address=1_000)
    tape.alloc(10, address=1_020)
    timeline = Timeline.of(tape.recording())

    view = view_blocks(timeline, layout="address")

    assert view.bottom.tolist() == [50, 0, 20]
    assert view.height_bytes == 150


def test_without_an_address_for_every_block_the_address_layout_is_not_offered() -> None:
    tape = Tape()
    tape.alloc(1, address=16)
    tape.alloc(1)

    timeline = Timeline.of(tape.recording())

    assert not has_addresses(timeline)
    assert view_blocks(timeline, layout="address").rest_peak_bytes == 1


def test_a_window_shows_what_lives_in_it_and_the_largest_first() -> None:
    tape = Tape()
    early = tape.alloc(1_000)
    tape.free(early)
    tape.alloc(5)
    tape.alloc(7)
    timeline = Timeline.of(tape.recording())

    everything, late = view_blocks(timeline), view_blocks(timeline, 2, 4)
    one = view_blocks(timeline, 2, 4, max_blocks=1)

    assert (len(everything.rows), everything.statement) == (3, "drawing all 3 blocks")
    assert timeline.blocks.bytes[late.rows].tolist() == [5, 7]
    assert timeline.blocks.bytes[one.rows].tolist() == [5]
    assert one.statement == "drawing 1 of 2 blocks, the rest at most 7 B at once"


@pytest.mark.parametrize("window", [(5, 5), (9, 2), (-100, -50), (1e12, 2e12), (float("nan"), 3.0)])
def test_an_impossible_window_becomes_one_inside_the_recording(window: tuple[float, float]) -> None:
    timeline = Timeline.of(synthetic_recording(500))

    view = view_blocks(timeline, *window)

    assert 0 <= view.start < view.end <= timeline.num_events


def test_a_layout_is_computed_once_so_that_zooming_never_moves_a_block() -> None:
    timeline = Timeline.of(synthetic_recording(3_000))

    assert layout_of(timeline, "stacked") is layout_of(timeline, "stacked")
    whole, part = view_blocks(timeline), view_blocks(timeline, 1_000, 1_200)
    places = dict(zip(whole.rows.tolist(), whole.bottom.tolist(), strict=True))
    assert all(places[row] == bottom for row, bottom in zip(part.rows.tolist(), part.bottom.tolist(), strict=True))


@given(recordings(), st.integers(1, 6), st.integers(1, 12))
def test_blocks_that_share_strips_do_not_overlap_and_drawn_and_rest_stay_the_total(recording: Recording, packed: int, events: int) -> None:
    with patch.object(layout, "MAX_PACKED", packed), patch.object(layout, "STRIP_EVENTS", events):
        timeline = Timeline.of(recording)
        view = view_blocks(timeline)
        layout_of(timeline, "stacked").reach(0, timeline.num_events)
        late = view_blocks(timeline, timeline.num_events / 2)

    for seen in (view, late):
        tops = seen.bottom + timeline.blocks.bytes[seen.rows]
        assert (seen.bottom >= 0).all()
        assert (tops <= seen.height_bytes).all()
        for i, j in itertools.combinations(range(len(seen.rows)), 2):
            together = seen.left[i] < seen.right[j] and seen.left[j] < seen.right[i]
            assert not (together and seen.bottom[i] < tops[j] and seen.bottom[j] < tops[i])
    drawn = np.zeros(timeline.num_events + 1, np.int64)
    np.add.at(drawn, timeline.blocks.birth_event[view.rows], timeline.blocks.bytes[view.rows])
    np.subtract.at(drawn, timeline.blocks.death_event[view.rows], timeline.blocks.bytes[view.rows])
    assert view.rest_peak_bytes == max(timeline.total - np.cumsum(drawn)[:-1], default=0)


def test_small_blocks_of_a_long_recording_appear_where_one_looks_closely_and_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_PACKED", 1_000)
    monkeypatch.setattr(layout, "STRIP_EVENTS", 1_024)
    timeline = Timeline.of(synthetic_recording(10_000))

    whole, near = view_blocks(timeline), view_blocks(timeline, 5_000, 5_200)
    again, beside = view_blocks(timeline, 5_000, 5_200), view_blocks(timeline, 5_100, 5_300)

    assert len(whole.rows) < whole.num_visible == len(timeline.members)
    assert whole.rest_peak_bytes > 0
    assert len(near.rows) > 0.95 * near.num_visible
    places = dict(zip(near.rows.tolist(), near.bottom.tolist(), strict=True))
    assert {row: places[row] for row in whole.rows.tolist() if row in places} == {
        row: bottom for row, bottom in zip(whole.rows.tolist(), whole.bottom.tolist(), strict=True) if row in places
    }
    assert again.bottom.tolist() == near.bottom.tolist()
    assert all(places.get(row, bottom) == bottom for row, bottom in zip(beside.rows.tolist(), beside.bottom.tolist(), strict=True))


def test_a_recording_without_events_has_an_empty_view() -> None:
    timeline = Timeline.of(Recording(metadata=metadata(), events=EVENTS.empty_table()))

    for name in ("stacked", "address"):
        assert len(view_blocks(timeline, layout=name).rows) == 0

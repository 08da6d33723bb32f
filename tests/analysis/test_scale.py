"""A recording of a million events is read, drawn and refined in the time that the pages promise."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from profiler.analysis.timeline import Timeline
from profiler.analysis.view import view_blocks
from profiler.figures.payload import blocks_payload
from profiler.figures.timeline import timeline_figure
from tests.builders import synthetic_recording

pytestmark = pytest.mark.slow


def _seconds(work: Callable[[], object]) -> float:
    """Return the least time of three runs."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def test_a_million_events_are_analysed_within_a_second_and_refined_within_300_milliseconds() -> None:
    recording = synthetic_recording(1_000_000)
    timeline = Timeline.of(recording)
    view_blocks(timeline)

    def first_paint() -> object:
        fresh = Timeline.of(recording)
        return timeline_figure(fresh, fresh.pick_rows(axis="time")).to_json()

    assert _seconds(first_paint) < 1.0
    assert _seconds(lambda: blocks_payload(timeline, view_blocks(timeline, 400_000, 420_000))) < 0.3
    assert _seconds(lambda: blocks_payload(timeline, view_blocks(timeline))) < 0.3


def test_the_peak_of_a_million_events_is_exact_in_the_chart_and_the_statement_says_what_was_left_out() -> None:
    timeline = Timeline.of(synthetic_recording(1_000_000))

    picked = timeline.pick_rows()

    assert timeline.peak_event in picked.rows
    assert picked.statement == f"showing {len(picked.rows):,} of 1,000,000 events, peak exact"
    assert 1_900 <= len(picked.rows) <= 2_000

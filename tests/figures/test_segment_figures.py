"""The map of segments: what its rows and rectangles say of their place in the address space."""

from __future__ import annotations

import pytest

from profiler.analysis.segment_map import SegmentMap, recorded_map
from profiler.analysis.segment_view import Order, segment_pages
from profiler.analysis.timeline import Timeline
from profiler.figures.segments import segments_figure
from tests.builders import MIB
from tests.gpu_programs import run_on_gpu

RECORDING = run_on_gpu([("alloc", 4 * MIB, 0), ("alloc", 3 * MIB, 0), ("alloc", 30 * MIB, 7)]).recording  # type: ignore[list-item]
TIMELINE = Timeline.of(RECORDING)


def state() -> SegmentMap:
    return recorded_map(RECORDING, TIMELINE, TIMELINE.num_events - 1)


def test_a_hover_says_the_address_the_stream_and_the_place_in_the_segment() -> None:
    [view] = segment_pages(state(), "large")
    said = {text for trace in segments_figure(view, TIMELINE.blocks).data for text in trace.customdata}

    shared, own = sorted(state().segments, key=lambda segment: segment.bytes)
    assert (shared.bytes, own.bytes, own.stream - shared.stream) == (20 * MIB, 30 * MIB, 7)
    [second] = [text for text in said if "<b>3.00 MiB</b>" in text]
    assert f"at {hex(shared.address + 4 * MIB)}, stream {shared.stream}" in second
    assert "4,194,304 B into a segment of 20.0 MiB, 13.0 MiB free" in second
    [alone] = [text for text in said if "<b>30.0 MiB</b>" in text]
    assert f"at {hex(own.address)}, stream {own.stream}" in alone


@pytest.mark.parametrize("order", ["size", "address"])
def test_rows_are_labelled_with_their_addresses_where_these_order_them(order: Order) -> None:
    [view] = segment_pages(state(), "large", order)
    labels = segments_figure(view, TIMELINE.blocks).layout.yaxis.ticktext

    by_address = tuple(hex(segment.address) for segment in sorted(state().segments, key=lambda segment: segment.address))
    assert labels == (by_address if order == "address" else ("30.0 MiB", "20.0 MiB"))

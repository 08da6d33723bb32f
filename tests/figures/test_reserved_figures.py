"""The charts of Allocator: reserved over allocated, fragmentation, the map of segments, and the table of settings."""

from __future__ import annotations

import numpy as np
import pytest

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.trace import Kind, Trace
from profiler.allocator.what_if import compare, smallest_card
from profiler.analysis.reserved import ReservedSeries, lane_trace, recorded_reserved, simulated_reserved
from profiler.analysis.segment_map import block_numbers, recorded_map, simulated_map
from profiler.analysis.segment_view import segment_pages
from profiler.analysis.timeline import Timeline
from profiler.figures.reserved import add_fragmentation, fragmentation_figure, reserved_figure
from profiler.figures.segments import segments_figure, segments_table
from profiler.figures.theme import DARK
from profiler.figures.timeline import timeline_figure
from profiler.figures.what_if import what_if_table
from profiler.recording import Category, Role
from tests.builders import MIB, Tape
from tests.gpu_programs import run_on_gpu

PROGRAM = [("alloc", 4 * MIB, 0), ("alloc", 30 * MIB, 0), ("free later", 0, 0), ("alloc", 3 * MIB, 0), ("alloc", 600, 0)]
RECORDING = run_on_gpu(PROGRAM).recording  # type: ignore[arg-type]
TIMELINE = Timeline.of(RECORDING)
TRACE = lane_trace(RECORDING, TIMELINE.lane)


def simulated(capacity_bytes: int | None = None) -> ReservedSeries:
    return simulated_reserved(TIMELINE, TRACE, AllocatorConfig(), capacity_bytes=capacity_bytes)


def recorded() -> ReservedSeries:
    series = recorded_reserved(RECORDING, TIMELINE)
    assert series is not None
    return series


def test_the_last_trace_has_the_drawn_points_for_clicks() -> None:
    series = simulated()
    rows = series.pick_rows()
    figure = reserved_figure(series, rows, recorded=recorded())

    assert [trace.name for trace in figure.data] == ["Allocated", "Reserved as recorded, imported", "Peak", "Reserved, simulated"]
    assert figure.data[-1].x.tolist() == series.event[rows].tolist()
    assert figure.data[-1].y.max() == series.peak_bytes == 52 * MIB
    assert figure.data[2].text[0] == "peak 52.0 MiB"


def test_where_memory_runs_out_is_marked_and_the_cards_line_is_drawn() -> None:
    series = simulated(40 * MIB)
    figure = reserved_figure(series, series.pick_rows(), capacity_bytes=40 * MIB, theme="dark")

    assert figure.data[-2].text[0] == "out of memory"
    assert [shape.y0 for shape in figure.layout.shapes] == [40 * MIB]
    assert figure.layout.annotations[0].text == "card 40.0 MiB"


def test_a_card_that_would_press_the_chart_flat_is_left_out() -> None:
    series = simulated()

    assert not reserved_figure(series, series.pick_rows(), capacity_bytes=1024 * MIB).layout.shapes


def test_charts_beside_each_other_share_their_axis() -> None:
    series = simulated()
    small = reserved_figure(series, series.pick_rows(), top_bytes=500 * MIB)

    assert small.layout.yaxis.range[1] >= 500 * MIB


@pytest.mark.parametrize(("axis", "title"), [("event", "Event"), ("time", "Time since the recording began (ms)")])
def test_the_axis_says_what_it_counts(axis: str, title: str) -> None:
    figure = reserved_figure(simulated(), simulated().pick_rows(), axis=axis, cursor=2)  # type: ignore[arg-type]

    assert figure.layout.xaxis.title.text == title
    assert len(figure.layout.shapes) == 1


def test_an_empty_series_says_so() -> None:
    empty = Timeline.of(Tape().recording())
    trace = lane_trace(Tape().recording(), empty.lane)
    series = simulated_reserved(empty, trace, AllocatorConfig())

    assert "Nothing was asked" in reserved_figure(series, series.pick_rows()).layout.annotations[0].text
    assert "Nothing was asked" in fragmentation_figure([series]).layout.annotations[0].text


def test_fragmentation_is_a_share_in_percent() -> None:
    series = recorded()
    line = fragmentation_figure([series, simulated()]).data[0]

    assert line.name == "as recorded, imported"
    assert np.allclose(line.y, 100 * series.external[series.pick_rows()])
    assert ((line.y >= 0) & (line.y <= 100)).all()


def test_fragmentation_over_a_timeline_leaves_the_clickable_trace_last() -> None:
    figure = timeline_figure(TIMELINE, TIMELINE.pick_rows())
    names = [trace.name for trace in figure.data]
    add_fragmentation(figure, TIMELINE, recorded(), theme="light", axis="time")

    assert [trace.name for trace in figure.data] == ["External fragmentation", *names]
    assert figure.data[0].yaxis == "y2"


def test_the_map_has_one_rectangle_a_block_in_its_segments_row() -> None:
    state = recorded_map(RECORDING, TIMELINE, TIMELINE.num_events - 1)
    [view] = segment_pages(state, "large")
    figure = segments_figure(view, TIMELINE.blocks, theme="dark")

    assert sum(len(trace.x) for trace in figure.data) == view.num_pieces
    assert sum(sum(trace.x) for trace in figure.data) == 50 * MIB
    waiting = next(trace for trace in figure.data if trace.name.startswith("Freed"))
    assert (list(waiting.x), waiting.marker.pattern.shape) == ([4 * MIB], "/")
    assert {trace.width for trace in figure.data} == {0.86}


def test_an_allocated_block_has_its_categorys_colour_and_says_what_it_is() -> None:
    tape = Tape(device=0)
    tape.alloc(4 * MIB, roles=Role.PARAMETER, module="h.0", tensor="<b>weight</b>")
    recording = tape.recording()
    timeline = Timeline.of(recording)
    trace = lane_trace(recording, timeline.lane)
    state = simulated_map(timeline, block_numbers(recording, timeline), trace, AllocatorConfig(), 0)
    [view] = segment_pages(state, "large")
    bar = segments_figure(view, timeline.blocks, theme="dark").data[0]

    assert bar.name == Category.PARAMETER.label
    assert bar.marker.color == DARK.colors[Category.PARAMETER]
    assert "4,194,304 B" in bar.customdata[0]
    assert "&lt;b>weight" in bar.customdata[0]


def test_a_pool_without_segments_says_so() -> None:
    [view] = segment_pages(recorded_map(RECORDING, TIMELINE, 0), "small")

    assert "No segment of this pool" in segments_figure(view, TIMELINE.blocks).layout.annotations[0].text


def test_the_table_of_segments_adds_up() -> None:
    table = segments_table(recorded_map(RECORDING, TIMELINE, TIMELINE.num_events - 1))

    assert table["pool"].tolist() == ["large", "large", "small"]
    assert (table["allocated_bytes"] + table["waiting_bytes"] + table["free_bytes"]).tolist() == table["bytes"].tolist()
    assert table["waiting_bytes"].sum() == 4 * MIB


def test_settings_are_compared_with_the_first_of_them() -> None:
    configs = {"": AllocatorConfig(), "expandable_segments:True": AllocatorConfig(expandable_segments=True)}
    trials = compare(TRACE, configs, [50 * MIB])
    smallest = {"": smallest_card(TRACE)}
    table = what_if_table(trials, smallest, {"": 5}).set_index("setting")

    assert table.index.tolist() == ["default", "expandable_segments:True"]
    assert table.loc["default", "against_default_bytes"] == 0
    assert table.loc["default", "out_of_memory"] == "at event 5, 600 B requested"
    assert table.loc["expandable_segments:True", "out_of_memory"] == "no"
    assert table.loc["default", "smallest_card_bytes"] == smallest[""] == 52 * MIB
    assert what_if_table(compare(TRACE, configs), {}, {})["out_of_memory"].tolist() == ["no limit", "no limit"]


def test_the_table_says_what_is_free_in_segments_that_are_partly_in_use() -> None:
    trace = Trace.of([Kind.ALLOC] * 3, [1, 2, 3], [9 * MIB, 4 * MIB, 30 * MIB], [0] * 3)
    table = what_if_table(compare(trace, {"": AllocatorConfig()}), {}, {})

    assert table.loc[0, "peak_reserved_bytes"] == (20 + 30) * MIB
    assert table.loc[0, "inactive_split_bytes"] == 7 * MIB

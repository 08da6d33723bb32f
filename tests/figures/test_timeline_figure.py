"""The timeline figure shows exact bytes, stays small, and its table has the same numbers."""

from __future__ import annotations

import json

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pytest

from profiler.analysis.samples import Series, memory_series
from profiler.analysis.timeline import Timeline
from profiler.figures.bands import MAX_MARKS
from profiler.figures.theme import DARK, LIGHT
from profiler.figures.timeline import timeline_figure, timeline_table
from profiler.recording import EVENTS, Recording
from tests.builders import Tape, metadata, small_training, synthetic_recording


@pytest.fixture(scope="module")
def training() -> Timeline:
    return Timeline.of(small_training())


@pytest.fixture(scope="module")
def large() -> Timeline:
    return Timeline.of(synthetic_recording(50_000))


def _areas(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.stackgroup]


def test_the_areas_sum_to_the_outline_at_every_point(training: Timeline) -> None:
    figure = timeline_figure(training, training.pick_rows())

    total = sum(np.asarray(trace.y, dtype=np.int64) for trace in _areas(figure))

    assert figure.data[-1].name == "Allocated"
    assert np.asarray(figure.data[-1].y, dtype=np.int64).tolist() == total.tolist() == training.total.tolist()


def test_a_click_on_point_i_means_event_i_of_the_picked_rows(large: Timeline) -> None:
    picked = large.pick_rows(200)

    figure = timeline_figure(large, picked, axis="event")

    assert figure.data[-1].x.tolist() == picked.rows.tolist()


def test_bytes_beyond_32_bits_stay_exact() -> None:
    tape = Tape()
    tape.alloc(2**40 + 1)
    timeline = Timeline.of(tape.recording())

    figure = timeline_figure(timeline, timeline.pick_rows())

    assert int(figure.data[-1].y[0]) == 2**40 + 1


def test_the_message_stays_within_400_kilobytes(large: Timeline) -> None:
    recording = synthetic_recording(50_000)

    figure = timeline_figure(large, large.pick_rows(), overlays=memory_series(recording))

    assert len(figure.to_json()) <= 400_000


def test_ticks_are_round_and_in_the_unit_that_the_title_says(training: Timeline, large: Timeline) -> None:
    small_axis = timeline_figure(training, training.pick_rows()).layout.yaxis
    large_axis = timeline_figure(large, large.pick_rows()).layout.yaxis

    assert (small_axis.title.text, small_axis.ticktext[:3]) == ("Allocated, measured (KiB)", ("0", "0.5", "1"))
    assert small_axis.tickvals[2] == 1024
    assert large_axis.title.text == "Allocated, measured (GiB)"


def test_the_peak_is_marked_and_labelled(training: Timeline) -> None:
    figure = timeline_figure(training, training.pick_rows(), axis="event")

    peak = next(trace for trace in figure.data if trace.name == "Peak")

    assert (peak.x[0], peak.y[0], peak.text[0]) == (22, 2000, "peak 1.95 KiB")


def test_steps_and_phases_are_bounded_shapes(large: Timeline) -> None:
    figure = timeline_figure(large, large.pick_rows())

    assert 0 < len(figure.layout.shapes) <= 2 * MAX_MARKS
    assert any(note.text == "step 1" for note in figure.layout.annotations)


def test_phases_are_named_where_there_is_room(training: Timeline) -> None:
    names = {note.text for note in timeline_figure(training, training.pick_rows()).layout.annotations}

    assert {"forward", "backward", "step 0", "step 1", "step 2"} <= names


@pytest.mark.parametrize(("name", "theme"), [("light", LIGHT), ("dark", DARK)])
def test_areas_carry_the_colours_of_the_theme(training: Timeline, name: str, theme: object) -> None:
    figure = timeline_figure(training, training.pick_rows(), theme=name)

    colors = {category.label: color for category, color in theme.colors.items()}
    assert all(trace.fillcolor == colors[trace.name] for trace in _areas(figure))


def test_a_reading_lies_at_the_event_that_it_follows() -> None:
    tape = Tape()
    for _ in range(3):
        tape.alloc(100)
    timeline = Timeline.of(tape.recording())
    first, second, third = timeline.blocks.event_us.tolist()
    times = np.array([first - 1, first, (first + second) / 2, second, third + 1])
    read = Series("psutil", "rss_bytes", -1, times, np.arange(5), 5)

    by_event = timeline_figure(timeline, timeline.pick_rows(), axis="event", overlays=[read])
    by_time = timeline_figure(timeline, timeline.pick_rows(), axis="time", overlays=[read])

    assert by_event.data[1].x.tolist() == [-1, 0, 0, 1, 2]
    assert (np.diff(by_time.data[1].x) > 0).all()


def test_a_reading_whose_event_is_known_lies_there_even_among_events_of_one_time() -> None:
    tape = Tape()
    tape.alloc(100)
    events = tape.recording().events
    same = pa.concat_tables([events, events.set_column(events.schema.get_field_index("block"), "block", pa.array([7], pa.int64()))])
    timeline = Timeline.of(Recording(metadata=metadata(), events=same))
    now = timeline.blocks.event_us
    reserved = Series("imported", "reserved_bytes", -1, now, np.array([200, 300]), 2, event=np.array([0, 1]))

    figure = timeline_figure(timeline, timeline.pick_rows(), axis="event", overlays=[reserved])

    assert now[0] == now[1]
    assert figure.data[1].x.tolist() == [0, 1]


def test_texts_of_a_recording_are_shown_as_text() -> None:
    tape = Tape()
    tape.sample("rss_bytes", 5.0, source="<a href='x'>")
    tape.alloc(1)
    recording = tape.recording()
    timeline = Timeline.of(recording)

    figure = timeline_figure(timeline, timeline.pick_rows(), overlays=memory_series(recording))

    assert figure.data[1].name == "Resident set (&lt;a href='x'>)"


def test_the_table_has_every_drawn_event_and_its_categories_sum(large: Timeline) -> None:
    picked = large.pick_rows(100)

    table = timeline_table(large, picked)

    assert table["event"].tolist() == picked.rows.tolist()
    assert (table.iloc[:, 5:].sum(axis=1) == table["allocated_bytes"]).all()


def test_a_recording_without_events_says_so() -> None:
    timeline = Timeline.of(Recording(metadata=metadata(), events=EVENTS.empty_table()))

    figure = timeline_figure(timeline, timeline.pick_rows())

    assert "no events" in json.dumps(figure.to_plotly_json(), default=str)

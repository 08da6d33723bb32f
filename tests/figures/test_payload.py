"""The canvas payload: exact sizes, aligned columns, bounded whatever the recording holds."""

from __future__ import annotations

import pytest

from profiler.analysis.timeline import Timeline
from profiler.analysis.view import MAX_BLOCKS, view_blocks
from profiler.figures.payload import blocks_payload, canvas_source, event_of, window_of
from profiler.recording import Category
from tests.builders import Tape, small_training, synthetic_recording
from tests.figures.payloads import unpack


@pytest.fixture(scope="module")
def large() -> Timeline:
    return Timeline.of(synthetic_recording(60_000))


@pytest.mark.parametrize("axis", ["event", "time"])
@pytest.mark.parametrize("layout", ["stacked", "address"])
def test_a_payload_reads_back_as_the_view(large: Timeline, axis: str, layout: str) -> None:
    view = view_blocks(large, axis=axis, layout=layout)

    sent = unpack(blocks_payload(large, view, cursor=7))

    assert sent["block"].tolist() == view.rows.tolist()
    assert sent["sizes"][sent["size"]].tolist() == large.blocks.bytes[view.rows].tolist()
    assert sent["left"] + sent["origin"] == pytest.approx(view.left, rel=1e-6, abs=1e-2)
    assert [sent["kinds"][kind][0] for kind in sent["kind"]] == large.blocks.category[view.rows].tolist()
    assert sent["peak"][1] == large.peak_bytes
    assert sent["mini_y"].max() == pytest.approx(large.total.max())


def test_names_come_with_the_kind() -> None:
    timeline = Timeline.of(small_training())
    sent = unpack(blocks_payload(timeline, view_blocks(timeline)))

    category, module, operator, tensor, shape, dtype = sent["kinds"][sent["kind"][0]]

    assert list(Category)[category] is Category.PARAMETER
    assert [sent["texts"][index] for index in (module, tensor, shape, dtype)] == ["fc", "fc.weight", "10x10", "float32"]
    assert operator == -1


def test_a_full_view_is_about_400_kilobytes_at_most(large: Timeline) -> None:
    view = view_blocks(large)

    assert len(view.rows) == MAX_BLOCKS
    assert len(blocks_payload(large, view)) <= 400_000


def test_names_that_all_differ_do_not_make_the_header_large() -> None:
    tape = Tape()
    for number in range(5_000):
        tape.alloc(number + 1, module=f"module.{number}" + "x" * 300, tensor=f"tensor {number}")
    timeline = Timeline.of(tape.recording())

    sent = unpack(data := blocks_payload(timeline, view_blocks(timeline)))

    assert len(data) < 300_000
    assert sent["sizes"][sent["size"]].tolist() == list(range(1, 5_001))


def test_many_steps_and_phases_are_thinned_to_steps_then_to_none(large: Timeline) -> None:
    sent = unpack(blocks_payload(large, view_blocks(large)))
    one_step = unpack(blocks_payload(large, view_blocks(large, 3_000, 4_000)))

    assert len(sent["marks"]) <= 200
    assert {mark[0] for mark in one_step["marks"]} == {"step", "phase"}


@pytest.mark.parametrize(
    ("axis", "x", "event"), [("event", 5.9, 5), ("event", -3, 0), ("event", 1e9, 43), ("time", 55.0, 5), ("time", 1e9, 43)]
)
def test_a_pick_is_the_event_whose_state_holds_there(axis: str, x: float, event: int) -> None:
    timeline = Timeline.of(small_training())
    of = unpack(blocks_payload(timeline, view_blocks(timeline, axis=axis)))["recording"]

    assert event_of(timeline, axis, {"block": None, "x": x, "of": of}) == event


@pytest.mark.parametrize(
    "message", [None, {}, {"x": 3, "of": "another"}, "text", {"x": float("nan"), "of": "/-1/0/event"}, {"of": "/-1/0/event"}]
)
def test_messages_of_another_recording_or_shape_are_ignored(message: object) -> None:
    timeline = Timeline.of(small_training())

    assert event_of(timeline, "event", message) is None
    assert window_of(timeline, "event", message) == (None, None)


def test_a_window_is_read_back() -> None:
    timeline = Timeline.of(small_training())

    assert window_of(timeline, "event", {"start": 3, "end": 8.5, "of": "/-1/0/event"}) == (3.0, 8.5)
    assert window_of(timeline, "time", {"start": 3, "end": 8.5, "of": "/-1/0/event"}) == (None, None)


def test_the_component_comes_with_the_package() -> None:
    source = canvas_source()

    assert 'class="plot" tabindex="0"' in source.html
    assert source.js.count("export default") == 1
    assert "innerHTML" not in source.js
    assert "http" not in source.js + source.css + source.html

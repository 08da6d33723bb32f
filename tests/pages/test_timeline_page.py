"""Timeline: the chosen recording's peak, its instants, its tables, and links that restore them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from profiler.analysis.timeline import Timeline
from profiler.recording import EVENTS, Phase, Recording, Role
from profiler.storage import RunStore
from tests import builders
from tests.pages.conftest import Open, texts

SMALL = Timeline.of(builders.small_training())


def chart(app: AppTest) -> dict[str, object]:
    return dict(json.loads(app.get("plotly_chart")[0].proto.spec))


def test_without_a_choice_the_page_offers_the_next_action(opened: Open) -> None:
    app = opened("timeline")

    assert app.selectbox(key="choosing_recording").value is None
    assert "Choose one above, or begin with a sample" in texts(app)


def test_choosing_a_recording_writes_it_and_its_job_to_the_address(opened: Open, stored: str) -> None:
    app = opened("timeline")
    app.selectbox(key="choosing_recording").select(stored).run()

    assert app.query_params["recording"] == stored
    assert "tiny-gpt2" in app.query_params["job"]
    assert app.metric[0].value == "1.95 KiB"


def test_recordings_that_would_look_the_same_stay_apart(opened: Open, home: Path) -> None:
    small = builders.small_training()
    twins = {RunStore(home).add(replace(small, metadata=replace(small.metadata, facts={"twin": number}))).id for number in (1, 2)}
    for twin in twins:
        app = opened("timeline", recording=twin)
        box = app.selectbox(key="choosing_recording")
        assert len(set(box.options)) == len(box.options)
        app.segmented_control(key="linked_view").set_value("blocks").run()
        assert app.query_params["recording"] == twin
    assert len(twins) == 2


def test_the_peak_is_shown_first_and_its_categories_sum_to_it(opened: Open, stored: str) -> None:
    app = opened("timeline", recording=stored)

    assert app.slider[0].value == SMALL.peak_event
    assert app.dataframe[0].value["bytes"].sum() == SMALL.peak_bytes
    assert "**1.95 KiB allocated** at" in texts(app)


@pytest.mark.parametrize("event", [0, 5, SMALL.num_events - 1])
def test_a_link_to_an_instant_shows_what_is_alive_there(opened: Open, stored: str, event: int) -> None:
    app = opened("timeline", recording=stored, at=str(event))

    assert app.dataframe[0].value["bytes"].sum() == SMALL.total[event]


def test_moving_the_slider_writes_the_instant_and_the_button_returns_to_the_peak(opened: Open, stored: str) -> None:
    app = opened("timeline", recording=stored)

    app.slider[0].set_value(3).run()
    assert app.query_params["at"] == "3"

    app.button(key="jump_to_peak").click().run()
    assert "at" not in app.query_params
    assert app.slider[0].value == SMALL.peak_event


def test_an_instant_beyond_the_recording_is_its_end(opened: Open, stored: str) -> None:
    app = opened("timeline", recording=stored, at="999999999999999999999999")

    assert app.slider[0].value == SMALL.num_events - 1


def test_the_view_in_the_link_is_the_one_that_is_drawn(opened: Open, stored: str) -> None:
    categories = opened("timeline", recording=stored)
    blocks = opened("timeline", recording=stored, view="blocks")

    assert "Parameter" in {trace["name"] for trace in chart(categories)["data"]}  # type: ignore[attr-defined]
    assert "drawing all" in texts(blocks)


@pytest.mark.parametrize("details", ["By module", "By tensor", "Allocations", "Chart data"])
def test_each_detail_is_a_table(opened: Open, stored: str, details: str) -> None:
    app = opened("timeline", recording=stored, details=details)

    assert len(app.dataframe[0].value) > 0


def test_the_module_tree_is_drawn(opened: Open, stored: str) -> None:
    app = opened("timeline", recording=stored, details="Module tree")

    assert json.loads(app.get("plotly_chart")[-1].proto.spec)["data"][0]["type"] == "icicle"


def test_search_finds_allocations_by_their_words(opened: Open, stored: str) -> None:
    app = opened("timeline", recording=stored, details="Allocations", among="all")
    all_of_them = len(app.dataframe[0].value)
    app.text_input(key="search_query").set_value("optimizer state").run()

    assert set(app.dataframe[0].value["category"]) == {"Optimizer state"}
    assert 0 < len(app.dataframe[0].value) < all_of_them


def test_a_recording_that_is_not_here_can_run_from_the_job_in_the_link(opened: Open) -> None:
    job = '{"model":{"name":"tiny-bert"},"workload":{"batch":3}}'

    said = texts(opened("timeline", recording="f" * 16, job=job))

    assert "is not on this machine" in said
    assert "tiny-bert · train · batch 3 x 128" in said


@pytest.mark.parametrize("job", ["", "{", "[]", '{"model":{}}', "x" * 10_000])
def test_a_damaged_job_in_a_link_is_refused_with_a_sentence(opened: Open, job: str) -> None:
    app = opened("timeline", recording="f" * 16, job=job)

    assert "is not on this machine" in texts(app)


def test_a_recording_without_events_says_so(opened: Open, home: Path) -> None:
    empty = RunStore(home).add(Recording(metadata=builders.metadata(), events=EVENTS.empty_table()))

    assert "This recording has no events" in texts(opened("timeline", recording=empty.id))


def test_warnings_and_cost_of_the_recording_are_stated(opened: Open, home: Path) -> None:
    metadata = builders.metadata(warnings=["No GPU was sampled."], overhead={"run_cpu_seconds": 2.0, "capture_cpu_seconds": 0.5})
    stored = RunStore(home).add(Recording(metadata=metadata, events=builders.small_training().events))

    said = texts(opened("timeline", recording=stored.id))

    assert "No GPU was sampled." in said
    assert "0.50 s of processor time beside the 2.00 s" in said


def test_each_memory_of_a_recording_can_be_chosen(opened: Open, home: Path) -> None:
    tape = builders.Tape()
    tape.alloc(64, device=0)
    tape.alloc(100, device=-1)
    stored = RunStore(home).add(tape.recording())

    first, host = opened("timeline", recording=stored.id), opened("timeline", recording=stored.id, memory="Host")

    assert first.metric[0].value == "64 B"
    assert host.metric[0].value == "100 B"


def test_what_another_recording_had_alive_is_told_at_the_peaks_and_at_the_ends(opened: Open, stored: str, home: Path) -> None:
    tape = builders.Tape()
    with tape.step(0), tape.phase(Phase.FORWARD):
        tape.alloc(400, roles=Role.PARAMETER, module="other")
    other = RunStore(home).add(tape.recording(title="Before")).id

    app = opened("timeline", recording=stored, against=other)
    assert "**1.95 KiB** are alive at the peak here and **400 B** there: Before (measured)." in texts(app)
    table = next(frame.value for frame in app.dataframe if "difference_bytes" in frame.value)
    assert table["difference_bytes"].sum() == SMALL.peak_bytes - 400

    app.segmented_control(key="linked_alive").set_value("end").run()
    assert app.query_params["alive"] == "end"
    assert "are alive at the end here" in texts(app)
    app.selectbox(key="linked_against").set_value("").run()
    assert "against" not in app.query_params
    assert "are alive at the end here" not in texts(app)

"""Allocator: reserved memory under default and other settings, segments at an instant, out of memory; every choice in the address."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from pages.shared import allocator_what_if, replays
from profiler.allocator.recorded_ooms import RecordedOom, oom_facts
from profiler.jobs.replayer import Replayer, Request
from profiler.recording import EVENTS, Phase, Recording, Role
from profiler.storage import RunStore
from tests import builders
from tests.builders import MIB
from tests.gpu_programs import run_on_gpu, with_stacks
from tests.pages.conftest import Open, texts

PROGRAM = [("alloc", 4 * MIB, 0), ("alloc", 30 * MIB, 0), ("free", 0, 0), ("alloc", 3 * MIB, 0), ("alloc", 600, 0)]


@pytest.fixture
def on_cpu(home: Path) -> str:
    """A training on a CPU: default settings reserve 12 + 32 + 20 MiB, pages of 20 MiB fewer."""
    tape = builders.Tape()
    tape.preexisting(12 * MIB, roles=Role.PARAMETER, module="fc", tensor="fc.weight")
    with tape.step(0), tape.phase(Phase.FORWARD):
        gone = tape.alloc(31 * MIB, module="fc", roles=Role.SAVED)
        tape.free(gone)
        tape.alloc(9 * MIB, module="head", roles=Role.SAVED)
        tape.alloc(25 * MIB, module="head", roles=Role.OUTPUT)
    return RunStore(home).add(tape.recording(title="On a CPU")).id


@pytest.fixture
def on_gpu(home: Path) -> str:
    recording = run_on_gpu(PROGRAM).recording  # type: ignore[arg-type]
    return RunStore(home).add(with_stacks(recording, ["train.py:3:main", "model.py:9:forward\ntrain.py:4:main"])).id


def charts(app: AppTest) -> list[dict[str, object]]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def names(chart: dict[str, object]) -> list[str]:
    return [trace["name"] for trace in chart["data"]]  # type: ignore[attr-defined]


def settings_table(app: AppTest):  # type: ignore[no-untyped-def]
    return next(frame.value for frame in app.dataframe if "against_default_bytes" in frame.value).set_index("setting")


def test_without_a_choice_the_page_offers_the_next_action(opened: Open) -> None:
    assert "Choose one above, or begin with a sample" in texts(opened("allocator"))


def test_a_cpu_recording_shows_its_predicted_reserved_memory_under_both_settings(opened: Open, on_cpu: str) -> None:
    app = opened("allocator", recording=on_cpu)
    said = texts(app)
    table = settings_table(app)

    # 12, 32 and, as 9 MiB is too small for a segment of its own, 20 MiB; 25 MiB does not fit beside 9 in 32, and needs 26.
    assert table.loc["default", "peak_reserved_bytes"] == (12 + 32 + 26) * MIB
    assert table.loc["expandable_segments:True", "peak_reserved_bytes"] == 60 * MIB
    assert "**Default settings**: peak reserved 70.0 MiB" in said
    assert "**`expandable_segments:True`**: peak reserved 60.0 MiB" in said
    assert [names(chart)[-1] for chart in charts(app)[:2]] == ["Reserved, simulated"] * 2
    assert "What a GPU would ask for beside it is not in a CPU recording: cuBLAS workspaces" in said
    assert [metric.value for metric in app.metric][:2] == ["70.0 MiB", "60.0 MiB"]


def test_the_smallest_card_of_each_setting_is_found(opened: Open, on_cpu: str) -> None:
    table = settings_table(opened("allocator", recording=on_cpu))

    assert (table["smallest_card_bytes"] >= 46 * MIB).all()
    assert table.loc["expandable_segments:True", "smallest_card_bytes"] <= table.loc["default", "smallest_card_bytes"]


def test_ones_own_settings_are_compared_and_shown_first(opened: Open, on_cpu: str) -> None:
    app = opened("allocator", recording=on_cpu, conf='PYTORCH_CUDA_ALLOC_CONF="max_split_size_mb:32"')

    assert app.selectbox(key="linked_setting").value == "max_split_size_mb:32"
    assert "max_split_size_mb:32" in settings_table(app).index


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"conf": "expandable_segment:True"}, "Did you mean 'expandable_segments'?"),
        ({"conf": "expandable_segments:True", "torch": "2.0"}, "came with torch 2.1"),
        ({"conf": "per_process_memory_fraction:0.5"}, "Give the card's size too"),
        ({"card": "many"}, "is not a size"),
        ({"card": "0"}, "holds nothing"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence_and_the_rest_is_shown(
    opened: Open, on_cpu: str, query: dict[str, str], sentence: str
) -> None:
    app = opened("allocator", recording=on_cpu, **query)

    assert sentence in texts(app)
    assert len(settings_table(app)) >= 5


def test_a_card_that_is_too_small_is_explained(opened: Open, on_cpu: str) -> None:
    app = opened("allocator", recording=on_cpu, card="64 MiB")
    said = texts(app)
    tried = next(frame.value for frame in app.dataframe if "passes" in frame.value)

    assert "default would run out of memory" in said
    assert "With **default** settings memory runs out at event 4 (step 0, forward)." in said
    assert "With expandable_segments:True it passes on this card" in said
    assert tried.set_index("setting").loc["expandable_segments:True", "passes"] == "yes"
    modules = next(frame.value for frame in app.dataframe if "module_or_call" in frame.value).set_index("module_or_call")["bytes"]
    assert modules.to_dict() == {"fc": 12 * MIB, "head": 9 * MIB}
    assert "about 35 MiB of capacity" in said


def test_an_error_of_the_recorded_run_is_explained_by_replays(opened: Open, home: Path) -> None:
    """On 50 MiB, 18 MiB do not fit: two segments of 20 MiB have holes of 11, 9 and 2 MiB, and 10 MiB are left."""
    program = [*[("alloc", 9 * MIB, 0)] * 4, ("free", 1, 0), ("free", 1, 0), ("alloc", 18 * MIB, 0)]
    facts = oom_facts([RecordedOom(0, 18 * MIB, 10 * MIB)])
    recording = run_on_gpu(program, capacity_bytes=50 * MIB, facts=facts).recording  # type: ignore[arg-type]
    app = opened("allocator", recording=RunStore(home).add(recording).id)
    said = texts(app)
    tried = next(frame.value for frame in app.dataframe if "passes" in frame.value).set_index("setting")["passes"]

    assert "The recorded run ran out of memory itself, last after event 7: 18,874,368 B were requested." in said
    assert "the recording implies 50.0 MiB for the allocator" in said
    assert tried["expandable_segments:True"] == "yes"
    assert tried["max_split_size_mb:512"] == "no"


def test_a_card_that_holds_it_says_so(opened: Open, on_cpu: str) -> None:
    app = opened("allocator", recording=on_cpu, card="24")

    assert "With 24.0 GiB to reserve, both settings pass." in texts(app)
    assert [label for label in settings_table(app).index if label.startswith("garbage_collection_threshold")]


def test_what_was_recorded_is_laid_over_and_mapped_as_it_was(opened: Open, on_gpu: str) -> None:
    app = opened("allocator", recording=on_gpu)
    said = texts(app)

    assert app.metric[0].label == "Peak reserved, imported"
    assert app.metric[0].value == "52.0 MiB"
    assert "Reserved as recorded, imported" in names(charts(app)[0])
    assert app.selectbox(key="linked_torch").value == "2.13"
    assert "Imported; a row is a segment" in said
    assert "**52.0 MiB reserved** after event" in said


@pytest.mark.parametrize("run", ["as recorded", "default", "expandable_segments:True"])
@pytest.mark.parametrize("details", ["Segments", "Allocator events", "Chart data"])
def test_each_detail_of_each_run_is_a_table(opened: Open, on_gpu: str, run: str, details: str) -> None:
    app = opened("allocator", recording=on_gpu, run_shown=run, details=details)

    assert len(app.dataframe[0].value) > 0


@pytest.mark.parametrize("query", [{"pool": "small"}, {"order": "free"}, {"at": "999999999999999999999"}, {"at": "0"}, {"axis": "time"}])
def test_every_choice_in_a_link_can_be_opened(opened: Open, on_gpu: str, query: dict[str, str]) -> None:
    assert "reserved** after event" in texts(opened("allocator", recording=on_gpu, **query))


def test_fragmentation_over_time_is_drawn(opened: Open, on_gpu: str) -> None:
    chart = charts(opened("allocator", recording=on_gpu, details="Fragmentation"))[2]

    assert names(chart) == ["as recorded, imported"]


def test_moving_the_instant_writes_it_to_the_address(opened: Open, on_gpu: str) -> None:
    app = opened("allocator", recording=on_gpu)
    app.slider[0].set_value(1).run()

    assert app.query_params["at"] == "1"
    assert "after event 1:" in texts(app)


def test_a_recording_without_events_says_so(opened: Open, home: Path) -> None:
    empty = RunStore(home).add(Recording(metadata=builders.metadata(), events=EVENTS.empty_table()))

    assert "This recording has no events" in texts(opened("allocator", recording=empty.id))


def test_a_long_recording_is_replayed_by_a_worker_with_the_same_numbers(opened: Open, on_cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = opened("allocator", recording=on_cpu, card="64 MiB")
    st.cache_resource.clear()
    monkeypatch.setattr(replays, "MAX_EVENTS_HERE", 3)
    app = opened("allocator", recording=on_cpu, card="64 MiB")

    assert texts(app) == texts(here)
    assert settings_table(app).equals(settings_table(here))
    assert [button.label for button in app.button if button.label in ("Cancel", "Replay it")] == []


def test_a_cancelled_replay_stays_so_until_it_is_asked_for_again(opened: Open, on_cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MAX_EVENTS_HERE", 3)
    asked: list[Request] = []
    with monkeypatch.context() as patched:
        patched.setattr(Replayer, "ask", lambda self, request, progress=None: asked.append(request) or st.stop())
        app = opened("allocator", recording=on_cpu)
    app.session_state["replays_cancelled"] = asked[0]
    app.run()
    assert "The replay was cancelled." in texts(app)

    next(button for button in app.button if button.label == "Replay it").click().run()
    assert "**Default settings**: peak reserved 70.0 MiB" in texts(app)


def test_long_replays_are_asked_for(opened: Open, on_cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator_what_if, "_AT_ONCE", 3)
    app = opened("allocator", recording=on_cpu, card="64 MiB")
    assert settings_table(app)["smallest_card_bytes"].isna().all()
    assert list(settings_table(app).index) == ["default", "expandable_segments:True"]

    app.toggle(key="replay_others").set_value(True).run()
    assert len(settings_table(app)) >= 5
    app.toggle(key="find_smallest").set_value(True).run()
    assert settings_table(app)["smallest_card_bytes"].notna().all()
    app.toggle(key="explain_failure").set_value(True).run()
    assert "memory runs out at event 4" in texts(app)


def test_timeline_shows_reserved_fragmentation_and_the_way_here(opened: Open, on_gpu: str) -> None:
    app = opened("timeline", recording=on_gpu)

    assert "GPU 0 reserved (imported)" in names(charts(app)[0])
    assert "Peak reserved" in [metric.label for metric in app.metric]
    over = opened("timeline", recording=on_gpu, over="Fragmentation")
    assert names(charts(over)[0])[0] == "External fragmentation"
    assert "What the allocator reserves for this, and why" in [link.proto.label for link in app.get("page_link")]


def test_a_recording_without_modules_has_a_tree_of_call_stacks(opened: Open, on_gpu: str) -> None:
    tree = charts(opened("timeline", recording=on_gpu, details="Module tree"))[-1]["data"][0]  # type: ignore[index]

    assert "main (train.py:4)" in tree["labels"]
    modules = charts(opened("timeline", recording=on_gpu, details="Module tree", tree="Modules"))[-1]["data"][0]  # type: ignore[index]
    assert "(no module)" in modules["labels"]


@pytest.mark.parametrize(("over", "name"), [("GPU 0 reserved (imported)", "GPU 0 reserved (imported)"), ("Fragmentation", "External")])
def test_timeline_lays_reserved_and_fragmentation_over_events_too(opened: Open, on_gpu: str, over: str, name: str) -> None:
    chart = charts(opened("timeline", recording=on_gpu, axis="event", over=over))[0]

    assert [trace for trace in names(chart) if trace.startswith(name)]


def test_the_way_from_timeline_keeps_the_chosen_instant(opened: Open, on_gpu: str) -> None:
    app = opened("timeline", recording=on_gpu)
    assert "at" not in query_of_link(app)
    app.slider[0].set_value(0).run()
    query = query_of_link(app)
    assert query["at"] == "0"

    there = opened("allocator", **query)
    assert there.slider[0].value == 0
    assert "reserved** after event 0:" in texts(there)


def test_timeline_maps_what_was_recorded_at_its_instant(opened: Open, on_gpu: str) -> None:
    app = opened("timeline", recording=on_gpu, details="Segment map", at="1")

    assert "**50.0 MiB reserved** after event 1:" in texts(app)
    assert "Imported; a row is a segment" in texts(app)
    calls = opened("timeline", recording=on_gpu, details="Allocator events")
    assert calls.dataframe[0].value["reserved_bytes"].max() == 52 * MIB
    assert "calls to the driver, imported" in texts(calls)


def test_timeline_of_a_cpu_recording_gains_no_lines_and_a_map_that_says_it_is_simulated(opened: Open, on_cpu: str) -> None:
    app = opened("timeline", recording=on_cpu, details="Segment map", at="1")

    assert "Peak reserved" not in [metric.label for metric in app.metric]
    assert not [trace for trace in names(charts(app)[0]) if "eserved" in trace]
    assert "**44.0 MiB reserved** after event 1:" in texts(app)
    assert "Simulated with default settings; a row is a segment" in texts(app)
    assert "calls to the driver, simulated with default settings" in texts(opened("timeline", recording=on_cpu, details="Allocator events"))


@pytest.mark.parametrize("page", ["allocator", "timeline"])
def test_segments_that_have_no_room_are_on_the_next_page(opened: Open, home: Path, page: str) -> None:
    many = RunStore(home).add(run_on_gpu([("alloc", (30 + 2 * number) * MIB, 0) for number in range(45)]).recording)
    last = {"recording": many.id, "details": "Map" if page == "allocator" else "Segment map", "at": "44", "order": "address"}
    app = opened(page, **last)
    assert "drawn are 40 of 45 segments, 1 to 40 in this order" in texts(app)

    app.number_input(key="linked_segments_page").set_value(2).run()
    assert app.query_params["segments_page"] == "2"
    assert "drawn are 5 of 45 segments, 41 to 45 in this order" in texts(app)
    assert len(charts(app)[-1]["layout"]["yaxis"]["ticktext"]) == 5  # type: ignore[index]


def query_of_link(app: AppTest) -> dict[str, str]:
    [link] = [link.proto for link in app.get("page_link") if link.proto.label.startswith("What the allocator reserves")]
    return dict(parse_qsl(link.query_string))

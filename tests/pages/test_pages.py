"""Every page opens, first and alone, and says what it is about; what is refused is shown as a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit import config

from pages.shared import library
from profiler.recording import Recording
from profiler.storage import RunStore, write_recording
from tests import builders
from tests.conftest import ROOT
from tests.pages.conftest import Open, texts

PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_on_an_empty_machine_and_asks_its_question(opened: Open, page: str) -> None:
    app = opened(page)

    assert len(app.title) == 1
    assert app.caption[0].value.endswith(("?", "."))
    assert not app.error


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_with_a_link_that_names_nothing_known(opened: Open, page: str) -> None:
    app = opened(page, recording="0" * 16, run="00000000-00000000", view="<script>", at="-1", axis="", live="x")

    assert not app.exception


def test_start_shows_a_card_for_each_sample_with_its_peak(opened: Open) -> None:
    library.SAMPLES.mkdir()
    write_recording(builders.small_training(), library.SAMPLES / "a.headroom")

    said = texts(opened("start"))

    assert "The peak, 1.95 KiB, is in step 1" in said


def test_start_leaves_out_a_sample_that_is_damaged(opened: Open) -> None:
    library.SAMPLES.mkdir()
    (library.SAMPLES / "a.headroom").write_bytes(b"not a zip")

    assert "No sample recordings are here" in texts(opened("start"))


def test_start_says_which_runs_failed_and_why(opened: Open, home: Path) -> None:
    events = builders.small_training().events
    for error in (None, "RuntimeError: mat1 and mat2 `differ`\nmore"):
        RunStore(home).add(Recording(metadata=builders.metadata(facts={"error": error} if error else {}), events=events))

    app = opened("start")

    assert [badge for badge in texts(app).split("\n") if "Failed" in badge] == [":red-badge[Failed]"]
    assert "`RuntimeError: mat1 and mat2 'differ'`" in texts(app)


def test_start_says_what_this_machine_has(opened: Open) -> None:
    facts = dict(opened("start").dataframe[0].value.itertuples(index=False))

    assert facts["Torch"].startswith("2.")
    assert {"Processor", "Memory", "System"} <= facts.keys()


def test_an_opened_file_is_stored_and_shown(opened: Open, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.headroom"
    recording = write_recording(builders.small_training(), path)

    app = opened("start")
    app.file_uploader(key="start_upload_0").set_value(("mine.headroom", path.read_bytes(), "application/zip")).run()

    assert RunStore(home).find(recording.id)
    assert app.title[0].value == "Timeline"
    assert app.query_params["recording"] == recording.id


def test_a_file_that_is_no_recording_is_refused_with_a_sentence_and_not_stored(opened: Open, home: Path) -> None:
    app = opened("start")
    app.file_uploader(key="start_upload_0").set_value(("mine.headroom", b"PK not a zip", "application/zip")).run()

    assert "mine.headroom is not a Headroom recording" in app.error[0].value
    assert RunStore(home).list() == []


def test_a_good_file_opens_after_a_bad_one(opened: Open, home: Path, tmp_path: Path) -> None:
    recording = write_recording(builders.small_training(), tmp_path / "good.headroom")
    app = opened("start")
    app.file_uploader(key="start_upload_0").set_value(("bad.headroom", b"PK not a zip", "application/zip")).run()
    app.run()
    app.file_uploader(key="start_upload_1").set_value(("good.headroom", (tmp_path / "good.headroom").read_bytes(), "application/zip")).run()

    assert app.query_params["recording"] == recording.id


def test_monitor_shows_the_machine_and_a_recording_in_progress(opened: Open, home: Path) -> None:
    from profiler.storage import RecordingWriter

    recording = builders.small_training()
    writer = RecordingWriter(RunStore(home).new_path("mine"))
    writer.describe(recording.metadata)
    writer.add("events", recording.events)
    writer.add("marks", recording.marks)

    app = opened("monitor")

    assert [metric.label for metric in app.metric][:3] == ["Memory used", "Swap used", "Processor"]
    assert "3 steps so far; peak 1.95 KiB" in texts(app)


def test_monitor_shows_the_charts_as_numbers_on_request(opened: Open) -> None:
    charts, numbers = opened("monitor"), opened("monitor", show="Numbers")

    assert len(charts.get("plotly_chart")) == 2
    assert len(numbers.dataframe) == len(charts.dataframe) + 2


def test_the_server_is_configured_as_the_measurements_say() -> None:
    config.get_config_options(force_reparse=True)

    assert config.get_option("runner.postScriptGC") is False
    assert config.get_option("browser.gatherUsageStats") is False
    assert config.get_option("client.showSidebarNavigation") is False
    assert config.get_option("server.enableXsrfProtection") is True

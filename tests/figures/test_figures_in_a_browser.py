"""The block canvas and the timeline figure in a real browser: what is drawn, what a hand can do, and how fast."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly
import pyarrow as pa
import pytest
from playwright.sync_api import Browser, Page

from profiler.analysis.timeline import Axis, Timeline
from profiler.analysis.view import view_blocks
from profiler.figures.payload import blocks_payload, canvas_source
from profiler.figures.timeline import timeline_figure
from tests.builders import small_training, synthetic_recording

pytestmark = pytest.mark.browser
_PLOT = "document.querySelector('#host').shadowRoot.querySelector('.plot')"
_STATUS = "document.querySelector('#host').shadowRoot.querySelector('.status').textContent"
_HARNESS = Path(__file__).with_name("canvas_harness.html")


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1200, "height": 640})
    yield page
    page.close()


def _open_canvas(page: Page, folder: Path) -> None:
    source = canvas_source()
    html = _HARNESS.read_text(encoding="utf-8")
    for name, text in (("css", source.css), ("html", source.html), ("js", source.js)):
        html = html.replace(f'"@{name}@"', json.dumps(text).replace("</", "<\\/"))
    (folder / "canvas.html").write_text(html, encoding="utf-8")
    page.goto((folder / "canvas.html").as_uri())
    page.wait_for_function("window.ready", timeout=5_000)


def _show(page: Page, timeline: Timeline, axis: Axis = "event", **window: float) -> None:
    data = blocks_payload(timeline, view_blocks(timeline, axis=axis, **window))
    page.evaluate("(text) => window.show(text)", base64.b64encode(data).decode())
    page.wait_for_timeout(50)


def _sent(page: Page) -> list[Any]:
    return page.evaluate("window.sent.splice(0)")


def _colors(page: Page) -> set[str]:
    """Return the colours of every seventh pixel of the plot."""
    return set(page.evaluate("window.colors()"))


def test_the_canvas_draws_the_categories_and_answers_wheel_keys_and_clicks(page: Page, tmp_path: Path) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    timeline = Timeline.of(small_training())
    _open_canvas(page, tmp_path)
    _show(page, timeline)

    assert {"#2662d2", "#0ea491", "#a2581e", "#5a0f9c"} <= _colors(page)

    page.mouse.move(600, 250)
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(450)
    (name, value), *rest = _sent(page)
    assert (name, rest, value["of"]) == ("view", [], "/-1/0/event")
    assert value["end"] - value["start"] == pytest.approx(22, abs=0.5)

    page.evaluate(f"{_PLOT}.focus()")
    page.keyboard.press("0")
    page.keyboard.press("w")
    page.keyboard.press("d")
    page.wait_for_timeout(450)
    (name, value), *rest = _sent(page)
    assert (name, rest) == ("view", [])
    assert value["end"] - value["start"] == pytest.approx(0.7 * 44, abs=0.1)

    page.keyboard.press("Enter")
    (name, value) = _sent(page)[0]
    assert (name, value["block"]) == ("pick", None)

    page.mouse.click(600, 440)
    (name, value) = _sent(page)[0]
    assert (name, value["block"]) == ("pick", 0)
    assert "Parameter, 400 B, 400 B, 10x10 float32, fc, fc.weight" in page.evaluate(_STATUS)
    assert errors == []


def test_dragging_pans_and_is_no_click(page: Page, tmp_path: Path) -> None:
    _open_canvas(page, tmp_path)
    _show(page, Timeline.of(small_training()), start=10.0, end=20.0)

    page.mouse.move(600, 300)
    page.mouse.down()
    page.mouse.move(500, 300, steps=4)
    page.mouse.up()
    page.wait_for_timeout(450)

    (name, value), *rest = _sent(page)
    assert (name, rest) == ("view", [])
    assert value["start"] > 10


def test_hiding_a_category_takes_its_colour_away(page: Page, tmp_path: Path) -> None:
    _open_canvas(page, tmp_path)
    _show(page, Timeline.of(small_training()))

    page.evaluate("document.querySelector('#host').shadowRoot.querySelector('.legend button').click()")

    assert "#2662d2" not in _colors(page)
    assert "#0ea491" in _colors(page)


def test_a_finer_view_keeps_the_place_and_another_recording_resets_it(page: Page, tmp_path: Path) -> None:
    timeline = Timeline.of(small_training())
    _open_canvas(page, tmp_path)
    _show(page, timeline)
    page.mouse.move(600, 250)
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(450)
    _, value = _sent(page)[0]

    _show(page, timeline, start=value["start"], end=value["end"])
    page.mouse.click(600, 60)
    before = _sent(page)[0][1]["x"]
    _show(page, timeline, axis="time")
    page.mouse.click(640, 60)
    after = _sent(page)[0][1]

    assert value["start"] < before < value["end"]
    assert (after["of"], after["x"]) == ("/-1/0/time", pytest.approx(430 * 0.5, rel=0.1))


def test_names_of_a_recording_are_shown_as_text(page: Page, tmp_path: Path) -> None:
    recording = small_training()
    names = recording.events["tensor"].cast("string").to_pylist()
    hostile = ["<img src=x onerror=window.hacked=1>" if name == "fc.weight" else name for name in names]
    index = recording.events.schema.get_field_index("tensor")
    field = recording.events.schema.field("tensor")
    events = recording.events.set_column(index, field, pa.array(hostile).dictionary_encode().cast(field.type))
    timeline = Timeline.of(type(recording)(metadata=recording.metadata, events=events, marks=recording.marks))
    _open_canvas(page, tmp_path)
    _show(page, timeline)

    page.mouse.move(600, 440)
    page.mouse.click(600, 440)
    page.wait_for_timeout(100)

    assert "<img src=x" in page.evaluate(_STATUS)
    assert page.evaluate("window.hacked === undefined")


def test_zooming_a_full_view_draws_within_50_milliseconds(page: Page, tmp_path: Path) -> None:
    timeline = Timeline.of(synthetic_recording(100_000))
    _open_canvas(page, tmp_path)
    _show(page, timeline)
    page.mouse.move(600, 250)

    times = []
    for _ in range(7):
        page.mouse.wheel(0, -60)
        page.wait_for_timeout(60)
        times.append(float(page.evaluate(f"{_PLOT}.dataset.drawMs")))

    assert sorted(times)[len(times) // 2] < 50


def test_a_click_anywhere_in_the_timeline_figure_selects_the_event(page: Page, tmp_path: Path) -> None:
    timeline = Timeline.of(small_training())
    picked = timeline.pick_rows()
    figure = timeline_figure(timeline, picked, axis="event").update_layout(clickmode="event+select", width=1100)
    script = f"<script>{plotly.offline.get_plotlyjs()}</script>"
    html = f"<!doctype html><meta charset='utf-8'>{script}{figure.to_html(full_html=False, include_plotlyjs=False, div_id='chart')}"
    (tmp_path / "timeline.html").write_text(html, encoding="utf-8")
    page.goto((tmp_path / "timeline.html").as_uri())
    page.wait_for_selector(".main-svg")
    page.evaluate(
        "window.got = []; chart.on('plotly_selected', (e) => window.got.push(...e.points.map((p) => [p.data.name, p.pointIndex])))"
    )

    page.mouse.move(600, 300)
    page.wait_for_timeout(150)
    page.mouse.click(600, 300)
    page.wait_for_function("window.got.length > 0", timeout=3_000)

    name, point = page.evaluate("window.got[0]")
    assert name == "Allocated"
    assert 15 <= picked.rows[point] <= 30

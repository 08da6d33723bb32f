"""What only a browser can show: links, Back, charts that are drawn, clicks, keys, and that nothing leaves the machine."""

from __future__ import annotations

import io
import re
import time
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import Dashboard, Visit, Watched

pytestmark = pytest.mark.browser

PATHS = {
    "start": "/",
    "profile": "/profile",
    "timeline": "/timeline",
    "allocator": "/allocator",
    "compare": "/compare",
    "monitor": "/monitor",
}
TITLES = {
    "start": "Headroom",
    "profile": "Profile",
    "timeline": "Timeline",
    "allocator": "Allocator",
    "compare": "Compare",
    "monitor": "Monitor",
}


def query(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlparse(page.url).query).items()}


def title(page: Page) -> str:
    return page.locator("h1").inner_text()


def go(watched: Watched, name: str) -> None:
    watched.page.get_by_test_id("stPageLink").get_by_role("link", name=name, exact=True).first.click()
    expect(watched.page.locator("h1")).to_have_text(TITLES[name.lower()])
    watched.settle()


def num_colors(png: bytes) -> int:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) // 16
    return len(np.unique(pixels.reshape(-1, 3), axis=0))


@pytest.mark.parametrize("name", PATHS)
def test_a_page_opened_first_after_a_start_is_that_page_with_the_navigation(cold_dashboard: Dashboard, visit: Visit, name: str) -> None:
    page = visit(cold_dashboard).open(PATHS[name])

    assert title(page) == TITLES[name]
    assert page.get_by_test_id("stPageLink").count() >= len(PATHS)
    assert not page.get_by_test_id("stException").count()


def test_a_link_to_a_recording_works_as_the_first_request_after_a_start(cold_dashboard: Dashboard, visit: Visit) -> None:
    page = visit(cold_dashboard).open(f"/timeline?recording={cold_dashboard.small}&at=5")

    assert query(page)["at"] == "5"
    expect(page.get_by_text("after event 5 of 44")).to_be_visible()


def test_choice_navigation_reload_second_context_and_back(dashboard: Dashboard, visit: Visit) -> None:
    first = visit(dashboard)
    page = first.open("/timeline")
    page.get_by_role("combobox", name=re.compile("Recording")).click()
    page.get_by_role("option", name=re.compile("Small training")).click()
    page.wait_for_url("**recording=*")
    first.settle()
    page.get_by_role("radio", name="Events", exact=True).click()
    page.wait_for_url("**axis=event*")
    chosen = query(page)
    assert chosen["recording"] == dashboard.small
    assert "tiny-gpt2" in chosen["job"]

    go(first, "Monitor")
    go(first, "Timeline")
    assert query(page) == chosen

    page.reload()
    first.settle()
    assert query(page) == chosen

    second = visit(dashboard).open(page.url.removeprefix(dashboard.url))
    assert query(second) == chosen
    expect(second.get_by_role("radio", name="Events", exact=True)).to_be_checked()

    page.go_back()
    expect(page.locator("h1")).to_have_text("Monitor")
    page.go_back()
    expect(page.locator("h1")).to_have_text("Timeline")
    first.settle()
    assert query(page) == chosen
    page.go_back()
    first.settle()
    assert "axis" not in query(page)


def test_the_pages_of_recordings_lead_to_the_one_that_was_shown_last(dashboard: Dashboard, visit: Visit) -> None:
    watched = visit(dashboard)
    page = watched.open(f"/timeline?recording={dashboard.small}&axis=event")

    go(watched, "Allocator")
    assert query(page)["recording"] == dashboard.small
    assert "axis" not in query(page), "a choice of the other page"

    page.get_by_role("combobox", name=re.compile("Recording")).click()
    page.get_by_role("option", name=re.compile("Large")).click()
    page.wait_for_url(f"**recording={dashboard.large}*")
    watched.settle()
    go(watched, "Timeline")
    assert query(page)["recording"] == dashboard.large
    assert "axis" not in query(page), "it was chosen for the other recording"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 420)])
@pytest.mark.parametrize("path", ["/", "/profile", "/timeline?recording={large}", "/timeline?recording={large}&view=blocks", "/monitor"])
def test_a_page_is_drawn_in_both_themes_and_in_a_narrow_window(
    dashboard: Dashboard, visit: Visit, path: str, scheme: str, width: int
) -> None:
    watched = visit(dashboard, scheme=scheme, width=width)
    page = watched.open(path.format(large=dashboard.large))

    assert num_colors(page.screenshot(animations="disabled")) > 8
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"))[:3]
    )
    assert (red + green + blue > 600) == (scheme == "light")


def test_the_chart_is_drawn_with_its_categories_and_a_name(dashboard: Dashboard, visit: Visit) -> None:
    page = visit(dashboard).open(f"/timeline?recording={dashboard.large}")
    chart = page.locator(".js-plotly-plot").first

    expect(chart.locator(".main-svg").first).to_be_visible()
    assert num_colors(chart.screenshot()) > 6
    expect(page.get_by_text("of 40,000 events, peak exact")).to_be_visible()


def test_a_click_on_the_chart_moves_the_instant_and_one_click_returns_to_the_peak(dashboard: Dashboard, visit: Visit) -> None:
    watched = visit(dashboard)
    page = watched.open(f"/timeline?recording={dashboard.large}")
    plot = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
    assert plot
    for _ in range(20):  # on a busy machine the chart takes a while until it listens
        page.mouse.move(plot["x"] + plot["width"] * 0.6, plot["y"] + plot["height"] * 0.8)
        page.wait_for_timeout(200)
        page.mouse.click(plot["x"] + plot["width"] * 0.6, plot["y"] + plot["height"] * 0.8)
        page.wait_for_timeout(1_000)
        if "at=" in page.url:
            break
    watched.settle()
    event = int(query(page)["at"])
    assert 0.4 < event / 40_000 < 0.8
    expect(page.get_by_text(f"after event {event:,} of 40,000")).to_be_visible()

    page.get_by_role("button", name="Jump to the peak").click()
    page.wait_for_url(lambda url: "at=" not in url)


def test_the_canvas_answers_keys_and_a_click_and_is_refined(dashboard: Dashboard, visit: Visit) -> None:
    watched = visit(dashboard)
    page = watched.open(f"/timeline?recording={dashboard.large}&view=blocks&axis=event")
    canvas = page.get_by_role("application", name=re.compile("Blocks of memory"))
    expect(canvas).to_be_visible()
    whole = canvas.screenshot()
    assert num_colors(whole) > 4

    canvas.focus()
    for _ in range(6):
        page.keyboard.press("w")
    page.wait_for_timeout(150)
    assert canvas.screenshot() != whole, "zooming is local and at once"

    start = time.monotonic()
    expect(page.get_by_text(re.compile(r"Blocks of Host, measured; drawing all [\d,]+ blocks\."))).to_be_visible(timeout=5_000)
    assert time.monotonic() - start < 4

    box = canvas.bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8)
    page.wait_for_url("**at=*")
    watched.settle()
    event = int(query(page)["at"])
    expect(page.get_by_text(f"after event {event:,} of 40,000")).to_be_visible()
    expect(page.get_by_text(re.compile("^Pinned: "))).to_be_visible()


def test_a_run_is_followed_in_a_second_tab_and_cancelled(dashboard: Dashboard, visit: Visit) -> None:
    watched = visit(dashboard)
    page = watched.open('/profile?job={"model":{"name":"tiny-gpt2"},"workload":{"steps":5000}}')
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url("**run=*")
    expect(page.get_by_role("button", name="Cancel")).to_be_visible(timeout=20_000)

    second = visit(dashboard).open(page.url.removeprefix(dashboard.url))
    second.get_by_role("button", name="Cancel").click()
    second.wait_for_timeout(2_500)  # the panel refreshes meanwhile, and the question stays
    second.get_by_role("button", name="Cancel the run").click()

    expect(second.get_by_text("Cancelled", exact=False).first).to_be_visible(timeout=20_000)
    expect(page.get_by_text("Cancelled", exact=False).first).to_be_visible(timeout=20_000)


def test_a_step_is_profiled_from_the_page_and_explored(dashboard: Dashboard, visit: Visit) -> None:
    watched = visit(dashboard)
    page = watched.open('/profile?job={"model":{"name":"tiny-gpt2"},"workload":{"batch":1,"seq":16,"steps":1}}')
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("link", name=re.compile("Explore it in Timeline")).click(timeout=90_000)

    expect(page.locator("h1")).to_have_text("Timeline")
    watched.settle()
    expect(page.get_by_text("torch.profiler", exact=False).first).to_be_visible()
    assert "recording" in query(page)
    assert "job" in query(page)


def test_downloads_carry_the_recording(dashboard: Dashboard, visit: Visit) -> None:
    page = visit(dashboard).open(f"/timeline?recording={dashboard.small}")

    for name, suffix in (
        ("Chart as CSV", ".csv"),
        ("Facts as JSON", ".json"),
        ("Events as Parquet", ".parquet"),
        ("Recording", ".headroom"),
    ):
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        assert download.value.suggested_filename == dashboard.small + suffix
        assert download.value.path().stat().st_size > 100

"""Allocator in a browser: charts and the map are drawn, a click chooses the instant, and typed settings are in the link."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Dashboard, Visit
from tests.browser.test_browser import num_colors, query

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 420)])
def test_the_page_is_drawn_in_both_themes_and_in_a_narrow_window(dashboard: Dashboard, visit: Visit, scheme: str, width: int) -> None:
    page = visit(dashboard, scheme=scheme, width=width).open(f"/allocator?recording={dashboard.large}")

    expect(page.locator(".js-plotly-plot")).to_have_count(3, timeout=30_000)
    expect(page.get_by_text("Default settings", exact=False).first).to_be_visible()
    assert num_colors(page.locator(".js-plotly-plot").first.screenshot()) > 4
    assert num_colors(page.locator(".js-plotly-plot").last.screenshot()) > 6
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_click_on_a_chart_shows_the_segments_of_that_instant(dashboard: Dashboard, visit: Visit) -> None:
    watched = visit(dashboard)
    page = watched.open(f"/allocator?recording={dashboard.large}")
    for attempt in range(5):  # a chart that is just being drawn takes no click, and may still move
        plot = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
        assert plot
        x, y = plot["x"] + plot["width"] * (0.5 + attempt / 100), plot["y"] + plot["height"] * 0.4
        page.mouse.move(x, y, steps=3)  # a click is on what the mouse was seen over before
        page.wait_for_timeout(200)
        page.mouse.click(x, y)
        page.wait_for_timeout(2000)
        if "at=" in page.url:
            break
    watched.settle()
    event = int(query(page)["at"])

    assert 0.3 < event / 40_000 < 0.7
    expect(page.get_by_text(re.compile(f"reserved after event {event:,}"))).to_be_visible()


def test_typed_settings_and_a_card_travel_in_the_link(dashboard: Dashboard, visit: Visit) -> None:
    watched = visit(dashboard)
    page = watched.open(f"/allocator?recording={dashboard.small}")
    page.get_by_role("textbox", name="Your settings").fill("max_split_size_mb:64")
    page.keyboard.press("Enter")
    page.wait_for_url("**conf=max_split_size_mb*")
    watched.settle()
    page.get_by_role("textbox", name="Card").fill("1MiB")
    page.keyboard.press("Enter")
    page.wait_for_url("**card=1MiB*")
    watched.settle()
    second = visit(dashboard).open(page.url.removeprefix(dashboard.url))

    expect(second.get_by_role("textbox", name="Your settings")).to_have_value("max_split_size_mb:64")
    expect(second.get_by_text(re.compile("memory runs out at event 0"))).to_be_visible()

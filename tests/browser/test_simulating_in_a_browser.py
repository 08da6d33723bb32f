"""Simulating in a browser: a newcomer sees why a model does not fit on a GPU that is not here, and what fits instead."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Dashboard, Visit
from tests.browser.test_browser import num_colors, query

pytestmark = pytest.mark.browser

TINY = '/profile?job={"model":{"name":"tiny-gpt2"},"device":"rtx-4090","workload":{"batch":1,"seq":16,"steps":1}}'


def choose(page: Page, label: str, typed: str, option: str) -> None:
    """Choose an option of a list by typing a part of it."""
    page.get_by_role("combobox", name=re.compile(label)).click()
    page.keyboard.type(typed)
    page.get_by_role("option", name=re.compile(option)).first.click()


def test_a_newcomer_sees_in_seconds_why_llama_3_8b_does_not_fit_on_an_rtx_4090(dashboard: Dashboard, visit: Visit) -> None:
    watched = visit(dashboard)
    page = watched.open("/profile")
    choose(page, "Model", "llama-3-8b", "Llama 3 8B")
    watched.settle()
    choose(page, "Where", "4090", "Simulate on GeForce RTX 4090, 23.5 GiB")
    watched.settle()
    page.get_by_role("button", name="Simulate", exact=True).click()

    expect(page.get_by_text(re.compile("It does not fit on GeForce RTX 4090: at least .* GiB more than its 23.5 GiB"))).to_be_visible(
        timeout=90_000
    )
    watched.settle()
    assert "rtx-4090" in query(page)["job"]
    expect(page.get_by_text(re.compile("The first request that fails comes .* Largest then: .* of parameters"))).to_be_visible()
    bar = page.locator(".js-plotly-plot").first
    assert num_colors(bar.screenshot()) > 4
    expect(bar.get_by_text("card 23.5 GiB")).to_be_visible()
    expect(page.get_by_text("Simulated", exact=True).first).to_be_visible()

    page.get_by_role("link", name=re.compile("Explore it in Timeline")).click()
    expect(page.locator("h1")).to_have_text("Timeline")
    watched.settle()
    expect(page.get_by_role("radio", name="GPU 0", exact=True)).to_be_checked()
    expect(page.get_by_text("Estimated time since the recording began")).to_be_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 420)])
def test_a_simulated_result_is_drawn_in_both_themes_and_in_a_narrow_window(
    dashboard: Dashboard, visit: Visit, scheme: str, width: int
) -> None:
    watched = visit(dashboard, scheme=scheme, width=width)
    page = watched.open(TINY)
    page.get_by_role("button", name="Simulate", exact=True).click()
    expect(page.get_by_text("It fits on GeForce RTX 4090", exact=False)).to_be_visible(timeout=90_000)
    watched.settle()

    assert num_colors(page.locator(".js-plotly-plot").first.screenshot()) > 4
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_search_for_the_largest_batch_is_followed_and_cancelled(dashboard: Dashboard, visit: Visit) -> None:
    watched = visit(dashboard)
    page = watched.open(TINY)
    page.get_by_role("button", name="Simulate", exact=True).click()
    page.get_by_role("button", name="Largest batch that fits").click(timeout=90_000)
    expect(page.get_by_text(re.compile(r"Batch [\d,]+: .*, simulation \d+ of at most"))).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Cancel").click()

    expect(page.get_by_text("Cancelled", exact=False).first).to_be_visible(timeout=20_000)

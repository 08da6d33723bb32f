"""Comparing in a browser: toggles are simulated, explained, reordered and followed; both themes, and a window as narrow as a phone's."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Dashboard, Visit
from tests.browser.test_browser import num_colors, query
from tests.browser.test_simulating_in_a_browser import choose

pytestmark = pytest.mark.browser

LINK = '/compare?job={"model":{"name":"tiny-gpt2"},"device":"rtx-4090","workload":{"batch":1,"seq":16,"steps":1}}&toggles='
SIMULATED_MS = 120_000


def until_done(page: Page) -> None:
    """Wait until no run is under way any more."""
    expect(page.get_by_text(re.compile("runs are done"))).to_have_count(0, timeout=SIMULATED_MS)


def test_toggles_are_simulated_explained_and_every_change_is_followed(dashboard: Dashboard, visit: Visit) -> None:
    watched = visit(dashboard, height=2600)
    page = watched.open(LINK + "bfloat16;sgd")
    expect(page.get_by_text("4 runs to make")).to_be_visible()
    page.get_by_role("button", name="Compare", exact=True).click()

    expect(page.get_by_text("baseline: ", exact=False).first).to_be_visible(timeout=SIMULATED_MS)
    expect(page.get_by_text(re.compile("The steps add up to .* B, simulated"))).to_be_visible(timeout=SIMULATED_MS)
    expect(page.get_by_text(re.compile("^bfloat16 saved .* What limits now"))).to_be_visible()
    until_done(page)

    choose(page, "Add a toggle", "tied", "Architecture: ")
    expect(page.get_by_text(re.compile("The steps add up to .* another order than bfloat16, sgd, tied-embeddings"))).to_be_visible(
        timeout=SIMULATED_MS
    )
    until_done(page)
    watched.settle()
    assert query(page)["toggles"] == "bfloat16;sgd;tied-embeddings"
    page.get_by_role("button", name="Up", exact=True).nth(1).click()
    expect(page.get_by_text(re.compile("another order than sgd, bfloat16, tied-embeddings"))).to_be_visible(timeout=SIMULATED_MS)
    assert query(page)["toggles"] == "sgd;bfloat16;tied-embeddings"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 420)])
def test_a_comparison_is_drawn_in_both_themes_and_in_a_narrow_window(dashboard: Dashboard, visit: Visit, scheme: str, width: int) -> None:
    watched = visit(dashboard, scheme=scheme, width=width, height=3000)
    page = watched.open(LINK + "bfloat16&details=Two+runs")
    start = page.get_by_role("button", name="Compare", exact=True)
    if start.count():
        start.click()
    expect(page.get_by_text(re.compile("The steps add up to"))).to_be_visible(timeout=SIMULATED_MS)
    until_done(page)
    watched.settle()

    bars, waterfall, overlaid = (page.locator(".js-plotly-plot").nth(place) for place in range(3))
    assert num_colors(bars.screenshot()) > 4
    assert num_colors(waterfall.screenshot()) > 2
    expect(overlaid.get_by_text("backward", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_comparison_is_cancelled_and_what_is_done_stays(dashboard: Dashboard, visit: Visit) -> None:
    watched = visit(dashboard)
    page = watched.open(LINK.replace('"seq":16', '"seq":32') + "bfloat16;sgd;checkpointing")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("button", name="Cancel").click(timeout=SIMULATED_MS)

    expect(page.get_by_text("Cancelled. What was done until then is kept")).to_be_visible(timeout=20_000)
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_visible()

"""Compress in a browser: charts in both themes and in a narrow window, and a real experiment from the button to its four measures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from profiler.compression.experiment import Experiment
from profiler.compression.products import FORMATS
from profiler.compression.result import ResultStore
from profiler.jobs.experiments import result_key
from tests.browser.conftest import Dashboard, Visit
from tests.browser.server import Server
from tests.browser.test_browser import num_colors, query
from tests.compression.results import result

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard whose store has some results."""
    home = tmp_path_factory.mktemp("lab-home")
    store = ResultStore(home)
    for found in (
        result("packed-int", held=187, loss=1.41),
        result("bfloat16", held=500),
        result("prune:amount=0.9", "store-csr", held=400, loss=2.0, seconds=0.9, zero_share=0.9),
        result("prune:amount=0.4", "store-csr", held=1193, seconds=3.0, zero_share=0.4),
    ):
        store.add(result_key(found.experiment), found)
    with Server(Path(home)) as server:
        yield Dashboard(server.url, home)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 420)])
def test_charts_are_drawn_in_both_themes_and_in_a_narrow_window(lab: Dashboard, visit: Visit, scheme: str, width: int) -> None:
    page = visit(lab, scheme=scheme, width=width).open("/compress?view=Break-even")

    expect(page.locator(".js-plotly-plot")).to_have_count(3, timeout=30_000)
    assert num_colors(page.locator(".js-plotly-plot").first.screenshot()) > 5
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_promise_leads_to_its_pipeline_and_the_link_says_so(lab: Dashboard, visit: Visit) -> None:
    watched = visit(lab)
    page = watched.open("/compress?view=Promises")
    expect(page.get_by_text("Does not hold").first).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Open in the pipeline").nth(2).click()
    page.wait_for_url("**stages=prune*store-csr*")
    watched.settle()

    assert "view" not in query(page)
    expect(page.get_by_text("1.193 of")).to_be_visible()


def test_products_of_a_shape_are_timed_from_the_button_to_a_line_a_format(lab: Dashboard, visit: Visit) -> None:
    watched = visit(lab)
    page = watched.open("/compress?view=Break-even&rows=64&columns=64&inputs=4")
    page.get_by_role("button", name="Measure products of this shape").click()

    expect(page.get_by_role("button", name="Measure again")).to_be_visible(timeout=120_000)
    times = page.locator(".js-plotly-plot").nth(1)
    expect(times.locator(".legendtext")).to_have_count(len(FORMATS), timeout=30_000)
    assert num_colors(times.screenshot()) > 5
    watched.settle()


def test_the_start_page_leads_to_a_pipeline(lab: Dashboard, visit: Visit) -> None:
    page = visit(lab).open("/")
    page.get_by_role("link", name="Prune half, then pack into four bits").click()

    page.wait_for_url("**stages=prune-global*packed-int*")
    expect(page.get_by_text("Pruning:").first).to_be_visible(timeout=30_000)


def test_an_experiment_runs_from_the_button_to_its_four_measures(lab: Dashboard, visit: Visit) -> None:
    watched = visit(lab)
    page = watched.open("/compress?stages=float16")
    page.get_by_role("button", name="Measure", exact=True).click()

    expect(page.get_by_test_id("stMetric")).to_have_count(4, timeout=120_000)
    expect(page.get_by_text("0.500 of")).to_be_visible()
    assert ResultStore(lab.home).find(result_key(Experiment.of("lab", ("float16",))))
    expect(page.get_by_role("button", name="Compressed file")).to_be_visible()

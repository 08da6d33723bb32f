"""How fast the dashboard shows a recording of a million events, and what Monitor costs: ``python -m benchmarks.dashboard_speed [--json]``.

Needs Chromium and the packages of requirements-dev.txt. Times are wall clock in a headless browser on this machine, from the request to
the painted peak or chart; *fresh* is a browser that has loaded nothing yet, *warm* one that has the scripts.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from profiler.storage import RunStore
from tests import builders
from tests.browser.chromium import find_chromium
from tests.browser.server import Server

PEAK, CHART, CANVAS = "[data-testid=stMetric]", ".js-plotly-plot .main-svg", "[role=application]"
_MONITOR_SECONDS = 30
_REFRESH_SECONDS = 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), options.events)
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        for name, value in results.items():
            print(f"{name:<46} {value:>9.2f}")


def measure(home: Path, num_events: int) -> dict[str, float]:
    """Return each figure under its name, which says its unit."""
    recording = RunStore(home).add(builders.synthetic_recording(num_events))
    path = f"/timeline?recording={recording.id}"
    results = {}
    with Server(home) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        _paint(browser, f"{server.url}/", "h1")
        results["first visit of the recording, fresh (s)"], _ = _paint(browser, server.url + path, CHART)
        results["peak shown, fresh browser (s)"], _ = _paint(browser, server.url + path, PEAK)
        results["chart, fresh browser (s)"], page = _paint(browser, server.url + path, CHART)
        results["peak shown, warm browser (s)"], _ = _paint(browser, server.url + path, PEAK, page)
        results["chart, warm browser (s)"], _ = _paint(browser, server.url + path, CHART, page)
        results["first block view, layout included (s)"], _ = _paint(browser, f"{server.url}{path}&view=blocks", CANVAS, page)
        results["block view, warm browser (s)"], page = _paint(browser, f"{server.url}{path}&view=blocks", CANVAS, page)
        results["block view refined after the last key (s)"] = _refine(page)
        idle_ms = _server_ms(page, server, "/")
        results["server with Start open, every 2 s (ms)"] = idle_ms
        results["Monitor, processor time a tick on top (ms)"] = _server_ms(page, server, "/monitor") - idle_ms
        browser.close()
    return results


def _paint(browser: Browser, url: str, selector: str, page: Page | None = None) -> tuple[float, Page]:
    """Return the seconds until ``selector`` is visible in a new tab, of a fresh browser or of ``page``'s."""
    context = page.context if page else browser.new_context(viewport={"width": 1280, "height": 1000})
    tab = context.new_page()
    start = time.perf_counter()
    tab.goto(url)
    tab.wait_for_selector(selector, timeout=60_000)
    return time.perf_counter() - start, tab


def _refine(page: Page) -> float:
    """Return the seconds from the last key of a zoom to the server's finer view; 0.35 of them are the pause that ends a zoom."""
    statement = page.get_by_text(re.compile("^Blocks of "))
    page.wait_for_timeout(1_500)
    page.get_by_role("application").focus()
    before = statement.inner_text()
    for _ in range(3):
        page.keyboard.press("w")
    start = time.perf_counter()
    while statement.inner_text() == before and time.perf_counter() - start < 30:
        page.wait_for_timeout(10)
    return time.perf_counter() - start


def _server_ms(page: Page, server: Server, path: str) -> float:
    """Return the server's processor milliseconds for each two seconds that one page is open, the readings of the machine included."""
    page.goto(f"{server.url}{path}")
    page.wait_for_timeout(6_000)
    process = psutil.Process(server.pid)
    start = sum(process.cpu_times()[:2])
    page.wait_for_timeout(_MONITOR_SECONDS * 1_000)
    spent = sum(process.cpu_times()[:2]) - start
    return 1_000 * spent * _REFRESH_SECONDS / _MONITOR_SECONDS


if __name__ == "__main__":
    main()

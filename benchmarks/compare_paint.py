"""How soon Compare shows a combination: ``python -m benchmarks.compare_paint [--json]``.

Llama-3-8B on an RTX 4090 in a headless browser on this machine, one toggle more at a time, then one fewer. Seconds of the page's own clock,
from the click to the frame in which the peak of the asked combination is there: *new* ones are simulated after a press of Compare, *known*
ones were simulated before, and the last toggle is removed. Needs Chromium and the packages of requirements-dev.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Locator, Page, sync_playwright

from benchmarks.compare_speed import BASELINE, LADDER
from profiler.spec import canonical_json
from tests.browser.chromium import find_chromium
from tests.browser.server import Server

_TIMEOUT_MS = 60_000
_WARM_UP_MS, _SETTLED_MS = 15_000, 2_000
_WATCH = """
() => {
    const metrics = () => [...document.querySelectorAll("[data-testid=stMetric]")].map(metric => metric.innerText)
    const peak = () => metrics().find(text => text.includes("GiB"))
    const before = peak()
    window.painted = null
    let clicked = null
    document.addEventListener("click", () => { clicked = performance.now() }, { capture: true, once: true })
    const look = () => {
        const shown = peak()
        if (clicked !== null && shown && shown !== before && ASKED.test(shown)) window.painted = (performance.now() - clicked) / 1000
        else requestAnimationFrame(look)
    }
    requestAnimationFrame(look)
}
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, Server(Path(home)) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1500})
        rows = _measure(page, server.url)
        browser.close()
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        print(f"{row['kind']:<6}{row['seconds']:6.2f} s  {' '.join(row['toggles'])}")
    return 0


def _measure(page: Page, url: str) -> list[dict[str, Any]]:
    rows = []
    for number in range(1, len(LADDER) + 1):
        toggles = LADDER[:number]
        page.goto(f"{url}/compare?job={quote(canonical_json(BASELINE.to_json()))}&toggles={quote(';'.join(toggles))}")
        button = page.get_by_role("button", name="Compare", exact=True)
        button.wait_for()
        page.wait_for_timeout(_WARM_UP_MS if number == 1 else _SETTLED_MS)
        rows.append({"kind": "new", "toggles": toggles, "seconds": _seconds(page, button, toggles)})
        page.get_by_test_id("stProgress").wait_for(state="detached", timeout=_TIMEOUT_MS)
        page.wait_for_timeout(_SETTLED_MS)
    for number in range(len(LADDER) - 1, 1, -1):
        remove = page.get_by_role("button", name="Remove").last
        rows.append({"kind": "known", "toggles": LADDER[:number], "seconds": _seconds(page, remove, LADDER[:number])})
        page.wait_for_timeout(_SETTLED_MS)
    return rows


def _seconds(page: Page, button: Locator, toggles: tuple[str, ...]) -> float:
    asked = "All together" if len(toggles) > 1 else f"Smallest|{toggles[0]}"
    page.evaluate(_WATCH.replace("ASKED", f"/{asked}/"))
    button.click()
    page.wait_for_function("window.painted !== null", timeout=_TIMEOUT_MS)
    return float(page.evaluate("window.painted"))


if __name__ == "__main__":
    sys.exit(main())

"""The README's pictures, taken of the running dashboard with its samples: ``python -m docs.pictures.take``.

Needs Chromium and the packages of requirements-dev.txt.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, sync_playwright

from sample_traces.recipes import RECIPES
from tests.browser.chromium import find_chromium
from tests.browser.server import Server

FOLDER = Path(__file__).resolve().parent
_SETTLED_MS = 3_000


class Picture(NamedTuple):
    """One picture: a page's address, its theme, and how much of it is shown."""

    name: str
    address: str
    theme: str
    height: int


def main() -> None:
    """Take every picture."""
    with tempfile.TemporaryDirectory() as home, Server(Path(home)) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        sample = _sample_id()
        for picture in (
            Picture("start", "/", "light", 1000),
            Picture("timeline", f"/timeline?recording={sample}", "light", 1130),
            Picture("blocks", f"/timeline?recording={sample}&view=blocks", "dark", 1130),
        ):
            _take(browser, server.url, picture)
        browser.close()


def _sample_id() -> str:
    from profiler.storage import read_metadata
    from sample_traces.make import path_of

    return read_metadata(path_of(RECIPES[0])).id


def _take(browser: Browser, url: str, picture: Picture) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": picture.height}, color_scheme=picture.theme, timezone_id="UTC")
    page = context.new_page()
    page.goto(url + picture.address)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.wait_for_timeout(_SETTLED_MS)
    page.screenshot(path=FOLDER / f"{picture.name}.png", animations="disabled")
    context.close()


if __name__ == "__main__":
    main()

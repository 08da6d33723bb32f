"""The README's pictures, taken of the running dashboard with its samples: ``python -m docs.pictures.take``.

Needs Chromium and the packages of requirements-dev.txt.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote

from playwright.sync_api import Browser, sync_playwright

from pages.shared.compare_baseline import EXAMPLE
from pages.shared.job_form import EXAMPLE_ON_A_GPU
from profiler.spec import canonical_json
from sample_traces.recipes import RECIPES
from tests.browser.chromium import find_chromium
from tests.browser.server import Server

FOLDER = Path(__file__).resolve().parent
_SETTLED_MS = 3_000
_RUN_MS = 120_000


class Picture(NamedTuple):
    """One picture: a page's address, its theme, and how much of it is shown."""

    name: str
    address: str
    theme: Literal["light", "dark"]
    height: int
    press: str = ""
    """A button to press first."""
    until: str = ""
    """Words to wait for then."""


def main() -> None:
    """Take every picture."""
    with tempfile.TemporaryDirectory() as home, Server(Path(home)) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        sample, example = _sample_id(), quote(canonical_json(EXAMPLE_ON_A_GPU.to_json()))
        full = quote(canonical_json(EXAMPLE.to_json()))
        toggles, stages = quote("bfloat16;checkpointing;adamw-8bit;lora"), quote("prune-global:amount=0.5;packed-int")
        for picture in (
            Picture("start", "/", "light", 1000),
            Picture("timeline", f"/timeline?recording={sample}", "light", 1130),
            Picture("simulate", f"/profile?job={example}", "light", 1180, "Simulate", "It does not fit"),
            Picture("compare", f"/compare?job={full}&toggles={toggles}", "light", 1560, "Compare", "lora saved"),
            Picture("compress", f"/compress?model=lab&stages={stages}", "dark", 1200, "Measure", "the same choice as the untouched model"),
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
    if picture.press:
        page.get_by_role("button", name=picture.press, exact=True).click()
        page.get_by_text(picture.until).first.wait_for(timeout=_RUN_MS)
    page.wait_for_timeout(_SETTLED_MS)
    page.screenshot(path=FOLDER / f"{picture.name}.png", animations="disabled")
    context.close()


if __name__ == "__main__":
    main()

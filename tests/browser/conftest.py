"""A dashboard of its own for the browser tests, with recordings in it, and a Chromium that may talk to nothing but it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request

from profiler.storage import RunStore
from tests import builders
from tests.browser.server import Server

_PROBES = ("_stcore/health", "_stcore/host-config")
"""On a deep link the client looks for the app's root under the page's path first; those answers are 404."""


@dataclass
class Dashboard:
    """A running server, and the ids of the recordings in its store."""

    url: str
    home: Path
    small: str = ""
    large: str = ""


@dataclass
class Watched:
    """A browser page with what went wrong on it."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        """Open an address of the dashboard and wait until it stands still."""
        self.page.goto(self.url + path)
        self.settle()
        return self.page

    def settle(self) -> None:
        """Wait until the script has run and the charts are drawn."""
        self.page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=30_000)
        self.page.wait_for_function("document.fonts.status === 'loaded'")
        self.page.wait_for_timeout(400)


@pytest.fixture(scope="session")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    home = tmp_path_factory.mktemp("browser-home")
    with Server(home) as server:
        store = RunStore(home)
        small, large = builders.small_training(), builders.synthetic_recording(40_000)
        job = {"model": {"name": "tiny-gpt2"}, "workload": {"batch": 2, "seq": 16}}
        ids = [
            store.add(replace(recording, metadata=replace(recording.metadata, title=title, job=job))).id
            for recording, title in ((small, "Small training"), (large, "Large training"))
        ]
        yield Dashboard(server.url, home, *ids)


@pytest.fixture
def cold_dashboard(tmp_path: Path) -> Iterator[Dashboard]:
    """A server that nobody has visited since it started."""
    with Server(tmp_path) as server:
        yield Dashboard(server.url, tmp_path, RunStore(tmp_path).add(builders.small_training()).id)


Visit = Callable[..., Watched]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open a fresh browser profile at a dashboard; what it should not have done fails the test at its end."""
    contexts: list[BrowserContext] = []
    visits: list[Watched] = []

    def start(dashboard: Dashboard, *, scheme: str = "light", width: int = 1280, height: int = 900) -> Watched:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        contexts.append(context)
        watched = Watched(context.new_page(), dashboard.url)
        visits.append(watched)
        _watch(watched)
        return watched

    yield start
    for context in contexts:
        context.close()
    for watched in visits:
        assert not watched.foreign, "requests left the machine"
        assert not watched.errors


def _watch(watched: Watched) -> None:
    def requested(request: Request) -> None:
        if not request.url.startswith((watched.url, watched.url.replace("http", "ws", 1), "data:", "blob:")):
            watched.foreign.append(request.url)

    def said(message: object) -> None:
        kind, text, where = message.type, message.text, message.location.get("url", "")  # type: ignore[attr-defined]
        if kind == "error" and not where.endswith(_PROBES):
            watched.errors.append(text)

    watched.page.on("request", requested)
    watched.page.on("console", said)
    watched.page.on("pageerror", lambda error: watched.errors.append(str(error)))

"""What every test shares: a run store of its own, one torch thread, quiet Kineto."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.chromium import find_chromium

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
_CHROMIUM_FLAGS = ["--no-sandbox", "--force-device-scale-factor=1", "--hide-scrollbars", "--force-color-profile=srgb"]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point HEADROOM_HOME at an empty folder, so that no test reads or writes the user's runs."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HEADROOM_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests: Playwright runs once a process."""
    path = find_chromium()
    if path is None:
        reason = "No Chromium is installed. Install one or name it in CHROMIUM."
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_CHROMIUM_FLAGS)
        yield browser
        browser.close()

"""What is uploaded takes the server's memory only until it is on disk."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.server import Server

pytestmark = pytest.mark.browser
MIB = 1024**2
UPLOADED_BYTES = 160 * MIB


def test_an_upload_leaves_the_servers_memory_while_its_page_is_open(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "zeros.pickle"
    file.write_bytes(bytes(UPLOADED_BYTES))
    with Server(tmp_path) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=30_000)
        before = psutil.Process(server.pid).memory_info().rss
        page.locator("input[type=file]").first.set_input_files(file)
        expect(page.get_by_text("zeros.pickle is")).to_be_visible(timeout=60_000)
        after = psutil.Process(server.pid).memory_info().rss
        page.close()

    assert after - before < UPLOADED_BYTES / 2

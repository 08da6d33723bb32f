"""Where the real recordings are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

FOLDER = ROOT.parent / "shared" / "recordings"


def index() -> list[dict[str, Any]]:
    """Return what is known of the real recordings; empty where they are not on this machine."""
    path = FOLDER / "index.json"
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


SNAPSHOTS = [row for row in index() if row["file"].endswith((".pickle", ".html"))]


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings; without it tests are skipped, but not where everything must be tested."""
    if FOLDER.exists():
        return FOLDER
    if os.environ.get("CI") == "true":
        pytest.fail("The folder of real recordings is missing beside the project; CI must test with it.")
    pytest.skip("The folder of real recordings is not beside the project.")

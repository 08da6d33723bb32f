"""What every test shares: a run store of its own, one torch thread, quiet Kineto."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point HEADROOM_HOME at an empty folder, so that no test reads or writes the user's runs."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HEADROOM_HOME", str(folder))
    return folder

"""The dashboard without a browser: a page opened at an address, over an empty run store and a fake engine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import streamlit as st
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest, app_test

from pages.shared import library, session
from profiler.capture.monitor import History
from profiler.jobs.manager import JobManager
from profiler.storage import RunStore
from tests import builders
from tests.conftest import ROOT

Open = Callable[..., AppTest]
_TIMEOUT_SECONDS = 120
"""Far more than a page takes: a run that is given up goes on in its thread, and into the tests after it."""
JOB = {"model": {"name": "tiny-gpt2"}, "workload": {"batch": 2, "seq": 16}}


@pytest.fixture(scope="session")
def machine() -> Iterator[History]:
    history = History()
    yield history
    history.stop()


@pytest.fixture(autouse=True)
def server(home: Path, machine: History, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobManager]:
    """A server that was just started: empty caches, an empty run store, no samples, workers that run no model."""
    st.cache_resource.clear()
    manager = JobManager(home, worker_command=[sys.executable, "-m", "tests.jobs.fake_worker"])
    monkeypatch.setattr(session, "jobs", lambda: manager)
    monkeypatch.setattr(session, "machine", lambda: machine)
    monkeypatch.setattr(library, "SAMPLES", home / "samples")
    # AppTest forgets before every run that app.py called st.navigation, which a server forgets only when it restarts.
    monkeypatch.setattr(PagesManager, "uses_pages_directory", False)
    monkeypatch.setattr(app_test, "PagesManager", type("PagesManager", (PagesManager,), {}))
    yield manager
    manager.close()
    st.cache_resource.clear()


@pytest.fixture
def opened() -> Open:
    """Open a page at an address and return it after its first run."""

    def start(page: str, **query: str) -> AppTest:
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=_TIMEOUT_SECONDS)
        app.run()
        for name, value in query.items():
            app.query_params[name] = value
        app.switch_page(f"pages/{page}.py").run()
        assert not app.exception, app.exception
        return app

    return start


@pytest.fixture
def stored(home: Path) -> str:
    """The id of a small training in the run store."""
    recording = builders.small_training()
    return RunStore(home).add(replace(recording, metadata=replace(recording.metadata, title="A small training", job=JOB))).id


def texts(app: AppTest) -> str:
    """Return everything a page says."""
    kinds = (app.title, app.subheader, app.markdown, app.caption, app.error, app.warning, app.info, app.success)
    return "\n".join(str(element.value) for kind in kinds for element in kind)

"""What the preloader does once before it forks."""

from __future__ import annotations

import pytest

from profiler.jobs.preloader import rehearse


def test_the_rehearsal_goes_through_to_its_end(capfd: pytest.CaptureFixture[str]) -> None:
    rehearse()

    assert "Traceback" not in capfd.readouterr().err  # it may fail without harm to anyone, and so unseen

"""Compress, the view Text: measured by a button, followed and cancelled like an experiment, then kept; what is missing is named."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pages.shared import compress_text
from profiler.jobs import facts
from tests.compression.test_text_forms import FACTS
from tests.pages.conftest import Open, texts
from tests.pages.test_compress_page import buttons, experiments, waited

__all__ = ["experiments"]


@pytest.fixture(autouse=True)
def _scikit_learn_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (compress_text, facts):
        monkeypatch.setattr(module, "to_install", lambda needs: None)


def test_forms_of_text_are_measured_when_asked_and_shown_with_what_is_missing(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "said.json").write_text(json.dumps({"result": asdict(FACTS)}))
    monkeypatch.setenv("HEADROOM_TEST_ANSWER", str(tmp_path / "said.json"))
    app = opened("compress", view="Text")
    assert not [frame for frame in app.dataframe if "form" in frame.value]

    waited(app.button(key="compress_text").click().run())

    forms = next(frame.value for frame in app.dataframe if "form" in frame.value)
    assert forms.iloc[0].to_dict() == {
        "form": "Bag of words",
        "held_bytes": 88,
        "dense_bytes": 96,
        "file_bytes": 900,
        "table_bytes": 0,
        "zero_share": 0.5,
        "accuracy_share": 0.75,
    }
    steps = next(frame.value for frame in app.dataframe if "step" in frame.value)
    assert steps["state_bytes"].tolist() == [324]
    assert "Install gensim to measure this" in texts(app)
    assert buttons(app)["compress_text"] == "Measure again"


def test_measuring_text_says_how_far_it_is_and_is_cancelled(opened: Open) -> None:
    app = opened("compress", view="Text")

    app.button(key="compress_text").click().run()

    assert app.button(key="compress_text").disabled
    assert app.get("progress")
    app.button(key="compress_cancel").click().run()
    waited(app, 20)
    assert "Cancelled." in texts(app)
    assert buttons(app)["compress_text"] == "Measure text"


def test_without_scikit_learn_the_view_says_what_to_install(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress_text, "to_install", lambda needs: "Install scikit-learn to measure this: pip install scikit-learn.")

    app = opened("compress", view="Text")

    assert "Install scikit-learn to measure this: pip install scikit-learn." in texts(app)
    assert "compress_text" not in buttons(app)

"""Compress, the view Text: measured by a button, then kept; what is missing is named."""

from __future__ import annotations

import pytest

from pages.shared import compress_text
from tests.compression.test_text_forms import FACTS
from tests.pages.conftest import Open, texts


def test_forms_of_text_are_measured_when_asked_and_shown_with_what_is_missing(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress_text, "to_install", lambda needs: None)
    monkeypatch.setattr(compress_text, "text_is_measured", lambda home: False)
    monkeypatch.setattr(compress_text, "text_facts", lambda home: FACTS)
    app = opened("compress", view="Text")
    assert not [frame for frame in app.dataframe if "form" in frame.value]

    app.button(key="compress_text").click().run()

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


def test_without_scikit_learn_the_view_says_what_to_install(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler.compression.base.importlib.util.find_spec", lambda name: None)

    app = opened("compress", view="Text")

    assert "Install scikit-learn to measure this: pip install scikit-learn." in texts(app)
    assert "compress_text" not in {button.key for button in app.button}

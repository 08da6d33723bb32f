"""The text that every Python carries."""

from __future__ import annotations

from profiler.models.text import SEPARATOR, language_reference


def test_the_language_reference_is_prose_with_each_paragraph_once() -> None:
    paragraphs = language_reference().decode().split(SEPARATOR)
    assert len(language_reference()) > 300_000
    assert len(paragraphs) == len(set(paragraphs))
    assert any("garbage" in paragraph for paragraph in paragraphs)

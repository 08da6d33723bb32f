"""The lab's documents -> their bytes and worth in each form, measured once by a worker and kept: the caller needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from profiler.compression.base import installed_version, to_install
from profiler.compression.lab import corpus
from profiler.compression.text_forms import NEEDS, GradientForm, TextFacts, TextForm
from profiler.errors import CaptureUnavailable
from profiler.jobs.key import versions
from profiler.jobs.printed import kept_path, printed_once

_COMMAND = (sys.executable, "-m", "profiler.compression.measure_text")
_NAME = "text"
_PACKAGES = ("scikit-learn", "gensim")
"""They decide what is measured."""


def text_facts(home: Path | str | None = None, *, command: Sequence[str] = _COMMAND) -> TextFacts:
    """Return the facts, some seconds the first time, a file's reading afterwards.

    Args:
        home: where they are kept; by default ``$HEADROOM_HOME``, else ``.headroom``.
        command: prints them as JSON.

    Raises:
        CaptureUnavailable: a package is missing.
        JobFailed: they could not be measured.
    """
    if sentence := to_install(NEEDS):
        raise CaptureUnavailable(sentence)
    return printed_once(command, _parsed, name=_NAME, parts=_parts(), what="The forms of text", home=home)


def text_is_measured(home: Path | str | None = None) -> bool:
    """Return whether `text_facts` would read a file."""
    return kept_path(_NAME, _parts(), home).exists()


def _parts() -> list[str]:
    used = versions() | {package: installed_version(package) for package in _PACKAGES}
    return [corpus.digest(), *(f"{name} {version}" for name, version in used.items())]


def _parsed(data: Any) -> TextFacts:
    return TextFacts(
        forms=tuple(TextForm(**row) for row in data["forms"]),
        gradients=tuple(GradientForm(**row) for row in data["gradients"]),
        missing=tuple(data["missing"]),
    )

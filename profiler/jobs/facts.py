"""What a worker of the lab measures besides experiments -> facts in the store: measured once, read afterwards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from profiler.compression import lab
from profiler.compression.base import installed_version, to_install
from profiler.compression.lab import corpus
from profiler.compression.products import Products, ProductTime
from profiler.compression.result import ResultStore
from profiler.compression.text_forms import NEEDS, GradientForm, TextFacts, TextForm
from profiler.compression.training_facts import OptimizerState, StepTime, TrainingFacts
from profiler.devices import this_machine
from profiler.errors import CaptureUnavailable, JobFailed
from profiler.jobs.key import versions
from profiler.jobs.lab_runs import Asked, Found
from profiler.platform_calls import can_fork
from profiler.spec import canonical_json
from profiler.storage.json_file import keep_json

_OPTIONAL = ("scikit-learn", "gensim")
"""Packages that decide what is measured of text."""


def text_asked(home: Path | str | None = None) -> Asked[TextFacts]:
    """Return the question what the lab's documents take and are worth in each form.

    Args:
        home: of the store; by default ``$HEADROOM_HOME``, else ``.headroom``.
    """
    parts = {"corpus": corpus.digest(), "versions": versions() | {package: installed_version(package) for package in _OPTIONAL}}
    return _asked("The forms of text", {"kind": "text"}, parts, _text_facts, home, check=_check_text)


def products_asked(products: Products, home: Path | str | None = None) -> Asked[list[ProductTime]]:
    """Return the question how long products with a matrix take in sparse formats.

    Args:
        products: the shape.
        home: of the store; by default ``$HEADROOM_HOME``, else ``.headroom``.
    """
    machine = this_machine()
    question = {"kind": "products", "products": asdict(products)}
    parts = {"products": asdict(products), "host": [machine.host, machine.cpu], "versions": versions()}
    title = f"Sparse products of {products.rows:,} x {products.columns:,} with {products.inputs:,} inputs"
    return _asked(title, question, parts, _product_times, home)


def training_asked(model: str, home: Path | str | None = None) -> Asked[TrainingFacts]:
    """Return the question what training a model of the lab takes, by optimizer and by the number of processes.

    Args:
        model: a name of the lab's models.
        home: of the store; by default ``$HEADROOM_HOME``, else ``.headroom``.
    """
    machine = this_machine()
    found = lab.find(model)
    parts = {"model": [model, found.fingerprint()], "host": [machine.host, machine.cpu], "versions": versions()}
    return _asked(f"Training {found.label}", {"kind": "training", "model": model}, parts, _training_facts, home, check=_check_fork)


def _asked(
    title: str,
    question: Mapping[str, Any],
    parts: Mapping[str, Any],
    parse: Callable[[Any], Found],
    home: Path | str | None,
    check: Callable[[], None] = lambda: None,
) -> Asked[Found]:
    """Return a question whose answer is kept as it was given.

    Args:
        title: what is measured, as a sentence begins.
        question: what the worker is told.
        parts: what the answer depends on, such as the machine and versions; they are the key.
        parse: turns the answer into facts; raises ValueError, TypeError or KeyError where it is something else.
        home: of the store.
        check: raises where it cannot be measured here.
    """
    digest = hashlib.sha256(canonical_json(dict(parts)).encode()).hexdigest()[:16]
    kept = ResultStore(home).folder / f"{question['kind']}-{digest}.txt"

    def find() -> Found | None:
        try:
            return parse(json.loads(kept.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def take(answer: Any, folder: Path) -> Found:
        del folder
        try:
            found = parse(answer)
        except (ValueError, TypeError, KeyError):
            raise JobFailed(f"{title} could not be measured: the worker said something else. Try again.") from None
        keep_json(kept, answer)
        return found

    return Asked(title=title, question=lambda: question, find=find, take=take, check=check)


def _check_text() -> None:
    if sentence := to_install(NEEDS):
        raise CaptureUnavailable(sentence)


def _check_fork() -> None:
    if not can_fork():
        raise CaptureUnavailable("Training in several processes is measured by forks, which torch survives on Linux only. Use Linux.")


def _text_facts(data: Any) -> TextFacts:
    return TextFacts(
        forms=tuple(TextForm(**row) for row in data["forms"]),
        gradients=tuple(GradientForm(**row) for row in data["gradients"]),
        missing=tuple(data["missing"]),
    )


def _training_facts(data: Any) -> TrainingFacts:
    return TrainingFacts(
        parameter_bytes=int(data["parameter_bytes"]),
        states=tuple(OptimizerState(**row) for row in data["states"]),
        times=tuple(StepTime(**row) for row in data["times"]),
        num_cores=int(data["num_cores"]),
    )


def _product_times(rows: Any) -> list[ProductTime]:
    return [ProductTime(**row) for row in rows]

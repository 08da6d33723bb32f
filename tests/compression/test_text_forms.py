"""Text as sparse counts and as dense vectors: every byte counted by hand, the facts kept, what is missing said."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from profiler.compression.lab import corpus
from profiler.compression.lab.chapters import CHAPTERS, NUM_WORDS, Piece, pieces
from profiler.compression.measure_text import DIMENSIONS, array_bytes, form, gradients
from profiler.compression.text_forms import GradientForm, TextFacts, TextForm, sparse_gradient_bytes
from profiler.errors import CaptureUnavailable, JobFailed
from profiler.jobs import facts
from profiler.jobs.facts import text_asked
from profiler.jobs.lab_runs import LabRuns, answered
from tests.conftest import ROOT

DOCUMENTS = [Piece((b"a", b"b", b"a"), 0), Piece((b"c",), 1), Piece((b"b", b"c", b"d"), 1)]
"""Counts: [2 1 0 0], [0 0 1 0], [0 1 1 1]: 6 numbers that are not zero, of 12."""
WORKER = (sys.executable, "-m", "tests.compression.fake_lab_worker")
FACTS = TextFacts(
    forms=(
        TextForm(
            name="counts",
            label="Bag of words",
            num_documents=3,
            num_columns=4,
            zero_share=0.5,
            held_bytes=88,
            dense_bytes=96,
            file_bytes=900,
            table_bytes=0,
            accuracy=0.75,
        ),
    ),
    gradients=(GradientForm(name="dense-adam", label="Dense", gradient_bytes=160, state_bytes=324, table_bytes=160),),
    missing=("Install gensim to measure this: pip install gensim.",),
)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of what the worker says instead of measuring."""
    monkeypatch.setenv("HEADROOM_TEST_ANSWER", str(tmp_path / "said.json"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "said.json"


def test_pieces_are_whole_of_one_chapter_and_none_is_on_both_sides() -> None:
    training, held_out = pieces(corpus.training()), pieces(corpus.held_out())

    assert {len(piece.words) for piece in training + held_out} == {NUM_WORDS}
    assert {piece.label for piece in held_out} == set(range(len(CHAPTERS)))
    assert not {tuple(piece.words) for piece in training} & {tuple(piece.words) for piece in held_out}


def test_counts_hold_a_number_and_a_column_for_each_word_and_where_each_document_begins() -> None:
    measure_text = pytest.importorskip("sklearn") and sys.modules["profiler.compression.measure_text"]
    counts = measure_text._counts(DOCUMENTS, DOCUMENTS)

    wide = form("counts", "", counts, DOCUMENTS, DOCUMENTS)
    narrow = form("counts-uint8", "", measure_text._in_a_byte(counts), DOCUMENTS, DOCUMENTS)

    assert wide.held_bytes == 6 * 8 + 6 * 4 + (3 + 1) * 4
    assert narrow.held_bytes == 6 * 1 + 6 * 4 + (3 + 1) * 4
    assert (wide.dense_bytes, narrow.dense_bytes) == (3 * 4 * 8, 3 * 4)
    assert wide.zero_share == narrow.zero_share == 0.5
    assert wide.accuracy == narrow.accuracy == 1.0
    assert wide.held_bytes < wide.file_bytes < wide.held_bytes + 2000


def test_a_dense_form_holds_its_numbers_and_the_file_adds_a_header_of_128_bytes() -> None:
    pytest.importorskip("sklearn")
    vectors = np.array([[2, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=np.float32)

    dense = form("dense", "", (vectors, vectors, 48), DOCUMENTS, DOCUMENTS)

    assert dense.held_bytes == dense.dense_bytes == 3 * 3 * 4
    assert dense.file_bytes == 36 + 128
    assert dense.table_bytes == 48


def test_word_vectors_are_a_table_of_the_words_seen_and_a_document_is_the_mean_of_those_it_has() -> None:
    measure_text = pytest.importorskip("gensim") and sys.modules["profiler.compression.measure_text"]
    unseen = [Piece((b"a", b"nowhere"), 0), Piece((b"a",), 0), Piece((b"nowhere",), 1), Piece((b"b",), 1)]

    seen, found, table_bytes = measure_text._word_vectors(DOCUMENTS, unseen)
    again, _, _ = measure_text._word_vectors(DOCUMENTS, unseen)

    assert table_bytes == 4 * DIMENSIONS * 4
    assert seen.shape == (3, DIMENSIONS)
    assert seen.dtype == found.dtype == np.float32
    assert (seen == again).all()
    assert (found[0] == found[1]).all()
    assert found[1].any()
    assert not found[2].any()
    assert seen[0] == pytest.approx((2 * found[1] + found[3]) / 3, abs=1e-6)


def test_a_view_counts_as_what_it_is_a_view_of() -> None:
    assert array_bytes(np.zeros((8, 4), dtype=np.float32)[:2]) == 8 * 4 * 4


def test_a_sparse_gradient_is_small_and_the_state_of_its_optimizer_is_not() -> None:
    words = [torch.tensor([0, 1, 1]), torch.tensor([1, 7])]

    dense, sparse, coalesced = gradients(words, num_words=10, dimensions=4)

    assert dense.gradient_bytes == dense.table_bytes == 10 * 4 * 4
    assert dense.state_bytes == 2 * 10 * 4 * 4 + 4, "two moments, and the step as a float32"
    assert sparse.gradient_bytes == 5 * (8 + 4 * 4) == sparse_gradient_bytes(5, 4)
    assert coalesced.gradient_bytes == sparse.gradient_bytes, "the 3 rows that are left are a view of the 5"
    assert sparse.state_bytes == coalesced.state_bytes == 2 * 10 * 4 * 4


def test_facts_are_measured_once_and_read_the_second_time(home: Path, said: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "to_install", lambda needs: None)
    said.write_text(json.dumps({"result": asdict(FACTS)}))
    assert text_asked(home).find() is None

    assert answered(LabRuns(command=WORKER), text_asked(home)) == FACTS

    assert answered(LabRuns(command=("never",)), text_asked(home)) == FACTS


def test_a_worker_that_says_something_else_is_told(home: Path, said: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "to_install", lambda needs: None)
    said.write_text('{"result": {}}')

    with pytest.raises(JobFailed, match="The forms of text could not be measured: the worker said something else"):
        answered(LabRuns(command=WORKER), text_asked(home))


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler.compression.base.importlib.util.find_spec", lambda name: None)

    with pytest.raises(CaptureUnavailable, match="Install scikit-learn to measure this: pip install scikit-learn"):
        answered(LabRuns(command=WORKER), text_asked())


@pytest.mark.slow
def test_on_the_lab_s_documents_counts_are_sparse_and_every_form_tells_more_than_chance(home: Path) -> None:
    pytest.importorskip("sklearn")
    facts = answered(LabRuns(), text_asked(home))
    found = {one.name: one for one in facts.forms}

    counts = found["counts"]
    nonzeros = round((1 - counts.zero_share) * counts.num_documents * counts.num_columns)
    assert counts.held_bytes == 12 * nonzeros + 4 * (counts.num_documents + 1)
    assert counts.held_bytes < counts.dense_bytes / 50
    assert found["learned"].held_bytes == counts.num_documents * 64 * 4
    assert all(one.accuracy > 2 / len(CHAPTERS) for one in facts.forms)
    assert all(one.state_bytes >= 2 * one.table_bytes for one in facts.gradients)

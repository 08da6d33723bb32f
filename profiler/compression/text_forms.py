"""Documents as vectors: the facts that `profiler.compression.measure_text` finds of each form. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

NEEDS = ("scikit-learn",)
"""Packages without which text is not measured."""


@dataclass(frozen=True, kw_only=True)
class TextForm:
    """The training documents in one form."""

    name: str
    label: str
    num_documents: int
    num_columns: int
    """Words of the vocabulary, or dimensions."""
    zero_share: float
    held_bytes: int
    """Of a sparse form its numbers, their columns and where each document begins; of a dense one its numbers."""
    dense_bytes: int
    """The same numbers with every zero stored."""
    file_bytes: int
    """As numpy or scipy writes it, without compression."""
    table_bytes: int
    """Vectors of words that a new document needs besides; 0 where there are none."""
    accuracy: float
    """Share of held-out documents whose chapter a linear classifier tells from this form."""


@dataclass(frozen=True, kw_only=True)
class GradientForm:
    """One step of training a table of word vectors."""

    name: str
    label: str
    gradient_bytes: int
    state_bytes: int
    """Of the optimizer, after the step."""
    table_bytes: int


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """What was measured of text."""

    forms: tuple[TextForm, ...]
    gradients: tuple[GradientForm, ...]
    missing: tuple[str, ...] = ()
    """Sentences for what could not be measured here."""


def sparse_gradient_bytes(num_rows: int, dimensions: int) -> int:
    """Return a sparse gradient's bytes: for each row of the table that it touches, a place of 8 bytes and float32 numbers.

    Args:
        num_rows: words of the batch as backward leaves it, each as often as it occurs; different words once it is coalesced.
        dimensions: of a word's vector.
    """
    return num_rows * (8 + 4 * dimensions)

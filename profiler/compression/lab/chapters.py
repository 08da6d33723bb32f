"""The lab's paragraphs -> the words of each chapter, and pieces of so many of them, with the chapter's number. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from profiler.compression.lab import corpus

CHAPTERS = ("compound", "debugger", "formatstrings", "specialnames", "string-methods", "types", "typesseq")
"""Those with more than 20,000 bytes of their own."""
NUM_WORDS = 31
"""Of a piece."""
_WORD = re.compile(rb"[a-z_]\w*")


class Piece(NamedTuple):
    """Some words of a chapter."""

    words: Sequence[bytes]
    label: int
    """The chapter's place in `CHAPTERS`."""


def words(some: Sequence[corpus.Paragraph]) -> list[list[bytes]]:
    """Return the words of each chapter among some paragraphs, in lower case."""
    texts = [corpus.text([item for item in some if item.chapter == chapter]) for chapter in CHAPTERS]
    return [_WORD.findall(text.lower()) for text in texts]


def pieces(some: Sequence[corpus.Paragraph]) -> list[Piece]:
    """Return the pieces that follow each other in each chapter; words that are left at its end are left out."""
    return [
        Piece(found[start : start + NUM_WORDS], label)
        for label, found in enumerate(words(some))
        for start in range(0, len(found) - NUM_WORDS + 1, NUM_WORDS)
    ]

"""The lab's text -> sentences of words that it uses often, and what each is in another language. Loads no torch.

The other language has rules, so a sentence has one translation, and a model must learn what translating takes: a word for each word
(written backwards, so that no dictionary is shipped), none for articles, and another order. What a preposition or conjunction begins stands
before what it follows, and that word behind it: ``the value of a list`` is ``tsil fo eulav``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from profiler.compression.lab import corpus

MOST_WORDS = 16
FEWEST_WORDS = 4
RARE = "something"
"""Stands for every word that is not in the vocabulary."""
NUM_HELD_OUT = 256

Sentence = Sequence[str]

_FEWEST_TIMES = 8
"""A word that the text to train on uses less often is rare."""
_ARTICLES = frozenset({"a", "an", "the"})
_WORD = re.compile(r"[a-z_]\w*(?:'\w+)?")
_LEADING = frozenset(
    _WORD.findall(
        "about after and as at because before but by for from if in into like of on or over than that then through to under unless until"
        " when where whether which while with without"
    )
)
"""Prepositions and conjunctions: each begins a phrase."""
_END = re.compile(r"[.,:;!?()\[\]{}=|]+(?=\s|$)|[(\[{]| --? ")
"""Where a sentence, or a part of one that stands by itself, ends."""
_SESSION = ">>>"
"""Paragraphs with it are code."""


@cache
def vocabulary() -> Sequence[str]:
    """Return the words that the text to train on uses often, in their order."""
    counts = Counter(word for sentence in _found(corpus.training()) for word in sentence)
    return sorted({RARE, *(word for word, count in counts.items() if count >= _FEWEST_TIMES)})


@cache
def training() -> Sequence[Sentence]:
    """Return the sentences to train on, some longer than `MOST_WORDS`."""
    return _common(_found(corpus.training()))


@cache
def held_out() -> Sequence[Sentence]:
    """Return `NUM_HELD_OUT` sentences to judge by, evenly spread, the shortest first; none is among those to train on."""
    trained = set(map(tuple, training()))
    new = [sentence[:MOST_WORDS] for sentence in _common(_found(corpus.held_out())) if tuple(sentence) not in trained]
    return sorted((new[index * len(new) // NUM_HELD_OUT] for index in range(NUM_HELD_OUT)), key=len)


def translated(sentence: Sentence) -> list[str]:
    """Return a sentence in the other language."""
    phrases: list[list[str]] = [[]]
    for word in sentence:
        if word in _LEADING:
            phrases.append([word])
        elif word not in _ARTICLES:
            phrases[-1].append(word)
    first, *others = phrases
    ordered = [*(word for phrase in reversed(others) for word in (*phrase[1:], phrase[0])), *first]
    return list(map(backwards, ordered))


def backwards(word: str) -> str:
    """Return the other language's word for a word."""
    return word[::-1]


def _common(found: Sequence[Sentence]) -> list[Sentence]:
    known = set(vocabulary())
    return [[word if word in known else RARE for word in sentence] for sentence in found]


def _found(some: Sequence[corpus.Paragraph]) -> list[Sentence]:
    texts = [" ".join(paragraph.text.lower().split()) for paragraph in some if _SESSION not in paragraph.text]
    sentences = [_WORD.findall(part) for text in texts for part in _END.split(text)]
    return [sentence for sentence in sentences if len(sentence) >= FEWEST_WORDS]

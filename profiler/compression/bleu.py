"""Texts and what they should be -> BLEU, by sacrebleu. Needs sacrebleu, which only what is judged so does."""

from __future__ import annotations

from collections.abc import Sequence

from sacrebleu.metrics.bleu import BLEU

_SEPARATED_BY_SPACES = "none"
"""How the texts are cut into words."""


def corpus_bleu(said: Sequence[str], references: Sequence[str]) -> float:
    """Return the BLEU of texts, all together, from 0 to 100.

    Args:
        said: words with spaces between them.
        references: as many, each what the text in its place should be.
    """
    return float(_metric().corpus_score(list(said), [list(references)]).score)


def signature() -> str:
    """Return how BLEU was computed, in sacrebleu's words: scores with another signature are not comparable."""
    metric = _metric()
    metric.corpus_score(["a"], [["a"]])
    return str(metric.get_signature())


def _metric() -> BLEU:
    return BLEU(tokenize=_SEPARATED_BY_SPACES)

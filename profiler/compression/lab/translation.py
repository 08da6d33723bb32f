"""The lab's translator: a small Marian that puts sentences of the language reference into another language."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel

from profiler.compression.bleu import corpus_bleu
from profiler.compression.lab import sentences
from profiler.compression.lab.checkpoint import read_into
from profiler.compression.lab.recipes import RECIPES
from profiler.compression.lab.sentences import FEWEST_WORDS, MOST_WORDS, Sentence
from profiler.compression.task import IGNORED, Batch, Forward

_EMPTY = 0
"""What fills a row, and what the decoder begins with, as in all Marians."""
_END = 1
_FIRST_WORD = 2
_LENGTH = MOST_WORDS + 1
"""Of a row: words and the end."""
_BATCH = 64
_SHAPE = {"layers": 2, "d_model": 64, "ffn_dim": 256}
_SMALL_SHAPE = {"layers": 1, "d_model": 24, "ffn_dim": 48}
_HEADS = 4


class TranslationTask:
    """Each next word of a translation. Inputs are a sentence and, behind it, what the decoder is given: the translation, shifted."""

    name = "lab-translation"
    unit = "word"
    head = "lm_head"

    def build(self) -> nn.Module:
        """Return the model with the shipped weights."""
        return read_into(self.untrained(0), RECIPES[self.name].weights)

    def untrained(self, seed: int) -> nn.Module:
        """Return the model with random weights."""
        return _random(seed, **_SHAPE)

    def smaller(self, seed: int) -> nn.Module:
        """Return a student with random weights."""
        return _random(seed, **_SMALL_SHAPE)

    def held_out(self) -> Sequence[Batch]:
        """Return sentences that are not trained on, in batches as large as those to train on."""
        found = sentences.held_out()
        return [_batch(found[first : first + _BATCH]) for first in range(0, len(found), _BATCH)]

    def training(self, seed: int) -> Iterator[Batch]:
        """Yield sentences, half of them cut to a part of theirs."""
        found, generator = sentences.training(), torch.Generator().manual_seed(seed)
        while True:
            chosen = torch.randint(0, len(found), (_BATCH,), generator=generator)
            yield _batch([_part(found[index], generator) for index in chosen])

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return what the model thinks of each next word."""
        source, given = inputs[:, :_LENGTH], inputs[:, _LENGTH:]
        logits: Tensor = model(input_ids=source, attention_mask=(source != _EMPTY).long(), decoder_input_ids=given, use_cache=False).logits
        return logits

    def bleu(self, forward: Forward) -> float:
        """Return the BLEU of the translations of the held-out sentences, the likeliest word at each place."""
        batches = self.held_out()
        said = [_text(row) for batch in batches for row in translate(forward, batch.inputs[:, :_LENGTH])]
        return corpus_bleu(said, [_text(row) for batch in batches for row in batch.targets])


def translate(forward: Forward, source: Tensor) -> Tensor:
    """Return the translations of sentences, each word the likeliest after those before it; what follows an end means nothing.

    The whole is computed for each word, as models can that take one shape only.
    """
    start = torch.full((len(source), 1), _EMPTY)
    said = torch.full((len(source), _LENGTH), _EMPTY)
    with torch.no_grad():
        for place in range(_LENGTH):
            logits = forward(torch.cat([source, start, said[:, :-1]], dim=1))
            said[:, place] = logits[:, place].argmax(-1)
            if (said == _END).any(1).all():
                break
    return said


@cache
def _words() -> Sequence[str]:
    """Return the word of each number: first those to read, then those to say."""
    known = sentences.vocabulary()
    return ["", "", *known, *map(sentences.backwards, known)]


@cache
def _numbers() -> tuple[dict[str, int], dict[str, int]]:
    """Return the number of each word to read, and of each to say."""
    known = sentences.vocabulary()
    said = {sentences.backwards(word): _FIRST_WORD + len(known) + place for place, word in enumerate(known)}
    return {word: _FIRST_WORD + place for place, word in enumerate(known)}, said


def _text(row: Tensor) -> str:
    numbers = row.tolist()
    return " ".join(_words()[number] for number in numbers[: numbers.index(_END) if _END in numbers else None])


def _part(sentence: Sentence, generator: torch.Generator) -> Sentence:
    def drawn(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    longest = min(len(sentence), MOST_WORDS)
    length = drawn(FEWEST_WORDS, longest) if drawn(0, 1) else longest
    start = drawn(0, len(sentence) - length)
    return sentence[start : start + length]


def _batch(some: Sequence[Sentence]) -> Batch:
    read, said = _numbers()
    source = [[read[word] for word in sentence] + [_END] for sentence in some]
    target = [[said[word] for word in sentences.translated(sentence)] + [_END] for sentence in some]
    given = [[_EMPTY, *row[:-1]] for row in target]
    return Batch(torch.cat([_filled(source, _EMPTY), _filled(given, _EMPTY)], dim=1), _filled(target, IGNORED))


def _filled(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return torch.tensor([[*row, *[value] * (_LENGTH - len(row))] for row in rows])


def _random(seed: int, layers: int, d_model: int, ffn_dim: int) -> nn.Module:
    torch.manual_seed(seed)
    sides: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        sides |= {f"{side}_layers": layers, f"{side}_ffn_dim": ffn_dim, f"{side}_attention_heads": _HEADS}
    config = MarianConfig(
        **sides,
        vocab_size=len(_words()),
        d_model=d_model,
        max_position_embeddings=_LENGTH,
        dropout=0.1,
        activation_function="relu",
        init_std=0.1,
        scale_embedding=True,
        pad_token_id=_EMPTY,
        decoder_start_token_id=_EMPTY,
        bos_token_id=_EMPTY,
        eos_token_id=_END,
        forced_eos_token_id=None,
    )
    model: nn.Module = MarianMTModel(config)
    return model.eval()

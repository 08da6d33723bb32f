"""The lab's translator: the language it learns, the BLEU it is judged by, and that every technique runs on it."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from functools import cache, partial
from itertools import islice

import pytest
import torch
from torch import Tensor

from profiler.compression import lab
from profiler.compression.bleu import corpus_bleu, signature
from profiler.compression.distill import soft_loss
from profiler.compression.experiment import Experiment
from profiler.compression.held import held_bytes
from profiler.compression.lab import corpus, sentences, train
from profiler.compression.lab.recipes import RECIPES
from profiler.compression.lab.translation import TranslationTask, translate
from profiler.compression.measure import measure, model_hash
from profiler.compression.quality import counted, judge
from profiler.compression.registry import TECHNIQUES
from profiler.compression.result import Result
from profiler.compression.subject import Subject
from profiler.compression.task import IGNORED, Batch
from profiler.errors import SpecError
from profiler.jobs.experiments import Experiments
from tests.compression.results import result
from tests.compression.tasks import TinyTask

NAME = "lab-translation"
EMPTY, END, LENGTH = 0, 1, 17


class ShortTask(TranslationTask):
    """The translator on one batch of its shortest sentences."""

    def held_out(self) -> Sequence[Batch]:
        return super().held_out()[:1]


@cache
def shipped() -> torch.nn.Module:
    return TranslationTask().build()


def test_bleu_is_the_one_of_the_formula() -> None:
    right_but_the_last = corpus_bleu(["a b c d e"], ["a b c d f"])
    too_short = corpus_bleu(["a b c d"], ["a b c d e"])

    assert right_but_the_last == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4))  # shares of right 1- to 4-grams
    assert too_short == pytest.approx(100 * math.exp(1 - 5 / 4))  # every 4-gram right, and the penalty for brevity
    assert corpus_bleu(["a b c d", "x"], ["a b c d", "y"]) == pytest.approx(100 * (4 / 5) ** (1 / 4))  # counted over both texts together
    assert corpus_bleu([""], ["a b c d"]) == 0


def test_the_signature_says_how_bleu_was_computed() -> None:
    assert signature().startswith("nrefs:1|case:mixed|eff:no|tok:none|smooth:exp|version:")


@pytest.mark.parametrize(
    ("sentence", "translation"),
    [
        ("the value of a list", "tsil fo eulav"),
        ("return the name", "nruter eman"),
        ("if the object is an instance of the class in x", "x ni ssalc fo tcejbo si ecnatsni fi"),
        ("then as if", "fi sa neht"),
    ],
)
def test_phrases_come_in_reverse_with_the_word_that_began_them_behind(sentence: str, translation: str) -> None:
    assert " ".join(sentences.translated(sentence.split())) == translation


def test_sentences_are_of_the_vocabulary_and_none_to_judge_by_is_trained_on() -> None:
    known = set(sentences.vocabulary())
    held_out = sentences.held_out()

    assert len(known) == 672
    assert {word for sentence in (*sentences.training(), *held_out) for word in sentence} <= known
    assert len(held_out) == sentences.NUM_HELD_OUT
    assert all(sentences.FEWEST_WORDS <= len(sentence) <= sentences.MOST_WORDS for sentence in held_out)
    assert not set(map(tuple, sentences.training())) & set(map(tuple, held_out))


def test_sentences_end_at_points_and_code_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "The *name* of an object, if it is a class; xyzzy is the value (of a list) here. No."
    paragraphs = [corpus.Paragraph("a", text), corpus.Paragraph("a", ">>> the name of an object")]

    found = [" ".join(sentence) for sentence in sentences._common(sentences._found(paragraphs))]

    assert found == ["the name of an object", "if it is a class", "something is the value"]


def test_what_the_decoder_is_given_is_the_translation_one_place_later() -> None:
    for batch in [next(TranslationTask().training(3)), *TranslationTask().held_out()]:
        source, given, targets = batch.inputs[:, :LENGTH], batch.inputs[:, LENGTH:], batch.targets
        inside = targets != IGNORED

        assert ((source == END).sum(1) == 1).all()
        assert ((targets == END).sum(1) == 1).all()
        assert (given[:, 0] == EMPTY).all()
        assert torch.equal(given[:, 1:][inside[:, 1:]], targets[:, :-1][inside[:, 1:]])
        assert (targets[inside & (targets != END)] >= 2 + len(sentences.vocabulary())).all()
        assert (source < 2 + len(sentences.vocabulary())).all()


def test_the_likeliest_words_are_those_that_transformers_finds() -> None:
    task, model = TranslationTask(), shipped()
    source = task.held_out()[-1].inputs[:8, :LENGTH]

    ours = translate(partial(task.logits, model), source)
    theirs = model.generate(source, attention_mask=(source != EMPTY).long(), max_new_tokens=LENGTH, num_beams=1, do_sample=False)

    for mine, other in zip(ours.tolist(), theirs[:, 1:].tolist(), strict=True):
        end = mine.index(END) if END in mine else LENGTH
        assert mine[:end] == other[:end]


def test_the_shipped_translator_has_its_reports_bleu_which_is_well_above_fifty() -> None:
    task, outcome = TranslationTask(), RECIPES[NAME].outcome

    quality = judge(task, partial(task.logits, shipped()))

    assert quality.bleu == pytest.approx(outcome["bleu"], abs=1.0)
    assert quality.bleu > 60
    assert outcome["versions"]["bleu"].split("|version")[0] == signature().split("|version")[0]


def test_damage_lowers_bleu() -> None:
    task = ShortTask()
    scores = [task.bleu(partial(task.logits, shipped()))]
    for stage in ("prune:amount=0.5", "prune:amount=0.8"):
        (toggle,) = Experiment.of(NAME, (stage,)).stages
        subject = Subject(task=task, model=task.build())
        technique = TECHNIQUES[toggle.name]
        technique.apply(subject, technique.read_options(dict(toggle.options)))
        scores.append(task.bleu(subject.logits))

    assert scores[0] > scores[1] > scores[2]


def test_a_model_that_says_the_right_words_has_a_bleu_of_a_hundred_and_one_that_says_nothing_none() -> None:
    task = TranslationTask()
    right = {
        tuple(row.tolist()): target
        for batch in task.held_out()
        for row, target in zip(batch.inputs[:, :LENGTH], batch.targets, strict=True)
    }

    def knows(inputs: Tensor) -> Tensor:
        targets = torch.stack([right[tuple(row.tolist())] for row in inputs[:, :LENGTH]]).clamp(min=0)
        return torch.nn.functional.one_hot(targets, 2 + 2 * len(sentences.vocabulary())).float()

    def says_nothing(inputs: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.full((len(inputs), LENGTH), END), 2000).float()

    assert task.bleu(knows) == pytest.approx(100)
    assert task.bleu(says_nothing) == 0


def test_training_again_gives_the_same_model_to_the_bit() -> None:
    (once, losses), (again, same_losses) = (train.train_model(RECIPES[NAME], stop_after=2) for _ in range(2))

    assert model_hash(once) == model_hash(again)
    assert losses == same_losses


def test_half_of_the_sentences_to_train_on_are_parts_and_all_are_translated_as_they_stand() -> None:
    task = TranslationTask()
    known = ["", "", *sentences.vocabulary()]
    whole = {tuple(sentence[: sentences.MOST_WORDS]) for sentence in sentences.training()}
    seen = []
    for batch in islice(task.training(0), 4):
        for row, target in zip(batch.inputs[:, :LENGTH].tolist(), batch.targets.tolist(), strict=True):
            words = [known[number] for number in row[: row.index(END)]]
            said = [sentences.backwards(known[number - len(sentences.vocabulary())]) for number in target[: target.index(END)]]
            assert said == sentences.translated(words)
            seen.append(tuple(words) in whole)

    assert 0.5 < sum(seen) / len(seen) < 0.9


def test_places_that_count_nowhere_teach_a_student_nothing() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    batch = Batch(torch.zeros(2, 3), torch.tensor([[1, 2, IGNORED], [3, IGNORED, IGNORED]]))
    expected = soft_loss(torch.stack([ours[0, 0], ours[0, 1], ours[1, 0]]), torch.stack([theirs[0, 0], theirs[0, 1], theirs[1, 0]]), 2.0)

    assert soft_loss(counted(ours, batch)[0], counted(theirs, batch)[0], 2.0) == pytest.approx(float(expected))


def test_only_what_translates_has_a_bleu_and_results_carry_it() -> None:
    tiny = TinyTask()
    assert judge(tiny, partial(tiny.logits, tiny.build())).bleu is None

    found = measure(Experiment.of(NAME, ("prune:amount=0.9",)), ShortTask())

    assert found.unit == "word"
    assert found.quality.bleu is not None
    assert found.baseline_quality.bleu is not None
    assert found.quality.bleu < found.baseline_quality.bleu == found.facts()["baseline_bleu"]
    assert found.versions["bleu"] == signature()
    assert Result.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_result_from_before_bleu_is_still_read() -> None:
    data = result().to_json()
    del data["quality"]["bleu"], data["baseline_quality"]["bleu"]

    assert Result.from_json(json.loads(json.dumps(data))).quality.bleu is None


def test_without_sacrebleu_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sacrebleu" else find(name))

    with pytest.raises(
        SpecError, match=r"Marian translator cannot be measured here. Install sacrebleu to measure this: pip install sacrebleu."
    ):
        Experiments(command=("never",)).submit(Experiment.of(NAME, ()))


@pytest.mark.parametrize("name", [name for name, item in TECHNIQUES.items() if item.to_install is None])
def test_every_technique_runs_on_an_encoder_and_decoder(name: str) -> None:
    task, technique = ShortTask(), TECHNIQUES[name]
    subject = Subject(task=task, model=task.build())
    options = {"steps": "1"} if any(parameter.name == "steps" for parameter in technique.parameters) else {}

    if name == "store-2-4":
        TECHNIQUES["prune-2-4"].apply(subject, {})
    technique.apply(subject, technique.read_options(options))

    (batch,) = task.held_out()
    with torch.no_grad():
        logits = subject.logits(batch.inputs)
    assert logits.shape == (64, LENGTH, 2 + 2 * len(sentences.vocabulary()))
    assert torch.isfinite(logits).all()
    assert not any(note.startswith("0 layers changed") for note in subject.notes)


def test_what_is_held_is_what_was_counted_by_hand() -> None:
    words, width, inner = 2 + 2 * 672, 64, 256
    encoder, decoder = 4 * width**2 + 2 * width * inner, 8 * width**2 + 2 * width * inner  # numbers of a layer's matrices
    rows = 2 * (4 * width + inner + width) + 2 * (8 * width + inner + width)  # of all of them, and so the biases' numbers
    norms, places, last_bias = 2 * (2 + 3) * 2 * width, 2 * LENGTH * width, words
    matrices, rest = 2 * (encoder + decoder), rows + norms + places + last_bias

    untouched, int8 = (Subject(task=ShortTask(), model=ShortTask().build()) for _ in range(2))
    TECHNIQUES["int8-weight-only"].apply(int8, {})

    assert held_bytes(untouched.model) == 4 * (words * width + matrices + rest) == 1_292_552
    packed = matrices + words * width + 5 * (rows + words)  # a byte a weight, the output layer's too, and scale and zero point a row
    assert held_bytes(int8.model) == packed + 4 * (words * width + rest) == 711_378


def test_the_lab_lists_it() -> None:
    model = lab.MODELS[NAME]

    assert model.needs == ("sacrebleu",)
    assert model.fingerprint() == RECIPES[NAME].outcome["weights_sha256"]

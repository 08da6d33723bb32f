"""The published results: rows of several seeds, the page made of them, and the bytes of the earlier trial counted again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.compression import __main__ as benchmark
from benchmarks.compression.cases import cases, seeds_of
from benchmarks.compression.page import conclusions, page
from benchmarks.compression.rows import Row, Spread
from benchmarks.compression.trial import HELD, TOLERANCE, WHILE_PRUNING, Figure, figures
from profiler.compression.base import Kind
from profiler.compression.default_lab import default_lab
from profiler.compression.experiment import Experiment
from profiler.compression.registry import TECHNIQUES
from profiler.compression.result import Result, ResultStore
from tests.compression.results import result
from tests.conftest import ROOT

_SEE_BATCHES = ("distill", "static-int8", "layer-drop")
"""Techniques that take batches by the seed, beside those that train."""

QUICK = [
    figure
    for figure in figures()
    if len(figure.stages) == 1 and figure.quantity in (HELD, WHILE_PRUNING) and "static-int8" not in figure.stages[0]
]
"""Without what has to be exported, clustered or coded, which takes seconds: the slow test has those."""


def seeds(*losses: float, control: float | None = None) -> list[Result]:
    extra = {} if control is None else {"control_loss": control}
    return [result("prune-global", "fine-tune", loss=loss, **extra) for loss in losses]


def test_a_row_says_the_shares_of_bytes_and_the_spread_of_what_seeds_change() -> None:
    row = Row.of(seeds(1.5, 1.6, 1.4, control=1.35))

    assert (row.held, row.file, row.num_seeds) == (0.5, 0.6, 3)
    assert row.loss_gain == Spread(pytest.approx(0.1), pytest.approx(0.0), pytest.approx(0.2))
    assert row.control_gain == Spread(pytest.approx(-0.05), pytest.approx(-0.05), pytest.approx(-0.05))
    assert row.time.width == 0


@pytest.mark.parametrize(
    ("one", "other", "apart"), [((1.0, 2.0), (2.5, 3.0), True), ((1.0, 2.0), (2.0, 3.0), False), ((5.0, 6.0), (1.0, 4.0), True)]
)
def test_ranges_are_apart_only_where_they_share_nothing(one: tuple[float, float], other: tuple[float, float], *, apart: bool) -> None:
    ranges = [Spread((low + high) / 2, low, high) for low, high in (one, other)]

    assert ranges[0].apart_from(ranges[1]) is ranges[1].apart_from(ranges[0]) is apart


def test_what_the_seeds_do_not_tell_apart_is_said_so() -> None:
    within, apart = Row.of(seeds(1.30, 1.40, control=1.35)), Row.of(seeds(1.90, 1.95, control=1.35))
    cheap = Row.of([result("bfloat16", loss=1.4)])

    (first,) = [text for text in conclusions([cheap, within]) if text.startswith("Fine-tuning alone")]
    (second,) = [text for text in conclusions([cheap, apart]) if text.startswith("Fine-tuning alone")]

    assert "Of 1 techniques that are fine-tuned, 0 differ" in first
    assert "Of 1 techniques that are fine-tuned, 1 differ" in second


def test_what_a_small_model_hides_is_told_beside_what_a_real_one_shows() -> None:
    of_tokens = replace(result("nf4", model="smollm2", loss=2.0), unit="token")
    small, real = Row.of([result("nf4", loss=1.401)]), Row.of([of_tokens])

    assert any("`nf4` +0.0010 nats a byte here and +0.6000 a token there" in text for text in conclusions([small], [real]))
    counted = Row.of([replace(of_tokens, num_targets=10, num_text_bytes=40)])
    assert any("here and +0.1500 (+0.6000 a token) there" in text for text in conclusions([small], [counted]))
    assert not any("SmolLM2" in text for text in conclusions([small], [small]))


def test_a_real_model_is_told_by_the_token_and_by_the_byte_where_the_bytes_were_counted() -> None:
    old = replace(result("nf4", model="smollm2", loss=2.0), unit="token")
    new = replace(old, num_targets=10, num_text_bytes=40)  # 1.4 and 2.0 nats a token are 0.35 and 0.5 a byte

    told = [page([Row.of([result("bfloat16")])], [Row.of([one])], figures()[:1], {}).split("On a real model")[1] for one in (old, new)]

    assert "| `nf4` | 0.500 | 0.600 | +0.6000 | not measured | 7.39 of 4.06 | not measured |" in told[0]
    assert "| `nf4` | 0.500 | 0.600 | +0.6000 | +0.1500 | 7.39 of 4.06 | 1.649 of 1.419 |" in told[1]


def test_the_labs_other_models_have_a_section_with_what_they_are_judged_by() -> None:
    classifier = Row.of([result("nf4", model="lab-classifier", accuracy=0.4)])
    translator = Row.of([result("nf4", model="lab-translation", loss=2.4, bleu=61.5)])

    text = page([Row.of([result("bfloat16")])], [], figures()[:1], {}, {"lab-classifier": [classifier], "lab-translation": [translator]})

    first, second = (text.split(f"## {name}\n")[1].partition("\n## ")[0] for name in ("BERT classifier", "Marian translator"))
    assert "204,935 parameters" in first
    assert "| agreement | accuracy | conversion peak |" in first
    assert "| 100.0% | 40.0% of 50.0% | 0.0 |" in first
    assert "Smallest in memory of those that cost less than 0.01 nats: `nf4`" in first
    assert "| 100.0% | 61.5 of 80.0 | 0.0 |" in second
    assert "Smallest" not in second, "nothing is that cheap"


def test_what_fine_tuning_repairs_is_told_from_before_to_after() -> None:
    before, after = Row.of([result("prune-global", loss=1.9)]), Row.of(seeds(1.5, 1.6, control=1.35))
    cheap = Row.of([result("bfloat16", loss=1.4)])

    assert "Fine-tuning takes `prune-global` from +0.5000 to +0.1500 (+0.1000 to +0.2000)." in conclusions([cheap, before, after])


def test_everything_in_the_default_lab_is_measured_and_only_what_sees_training_batches_with_several_seeds() -> None:
    found = cases("lab")

    assert set(default_lab("lab")) <= set(found)
    for experiment in found:
        sees_batches = any(item.kind is Kind.TRAINING or item.name in _SEE_BATCHES for item in experiment.techniques)
        assert [one.seed for one in seeds_of(experiment, 3)] == ([0, 1, 2] if sees_batches else [0])


def test_what_was_kept_is_printed_and_written_without_measuring(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.compression.trial.figures", lambda: (Figure(stages=("bfloat16",), quantity=HELD, share=0.5),))
    store = ResultStore()
    for seed, loss in enumerate((1.5, 1.7)):
        one = result("prune-global", "fine-tune", loss=loss, control_loss=1.3)
        store.add(f"key{seed}", replace(one, experiment=Experiment.of("lab", ("prune-global", "fine-tune"), seed=seed)))
    store.add("other", result("bfloat16"))

    assert benchmark.main(["--kept", "--json", "--markdown", str(home / "page.md")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert benchmark.main(["--kept"]) == 0

    by_name = {row["technique"]: row for row in rows}
    assert by_name["prune-global + fine-tune"]["num_seeds"] == 2
    assert by_name["prune-global + fine-tune"]["loss_gain"] == {
        "mean": pytest.approx(0.2),
        "low": pytest.approx(0.1),
        "high": pytest.approx(0.3),
    }
    assert "prune-global + fine-tune" in capsys.readouterr().out
    assert "| `bfloat16` | held in memory | 0.500 | 0.500 |" in (home / "page.md").read_text()


@pytest.mark.usefixtures("home")
def test_where_nothing_was_kept_only_the_heads_of_the_table_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--kept"]) == 0

    assert capsys.readouterr().out.split()[-1] == "technique"


@pytest.mark.parametrize("figure", QUICK, ids=lambda figure: f"{figure.stages[0]}-{figure.quantity}")
def test_bytes_in_memory_of_the_trial_come_out_again(figure: Figure) -> None:
    assert figure.deviation() == pytest.approx(0, abs=TOLERANCE)


@pytest.mark.slow
def test_every_figure_of_the_trial_comes_out_again() -> None:
    assert not [(figure, figure.deviation()) for figure in figures() if not figure.agrees]


def test_a_figure_farther_off_than_allowed_does_not_agree() -> None:
    assert Figure(stages=("bfloat16",), quantity=HELD, share=0.5).agrees
    assert not Figure(stages=("bfloat16",), quantity=HELD, share=0.6).agrees
    assert not Figure(stages=("bfloat16",), quantity=HELD, share=0.4).agrees


def test_the_published_page_has_every_technique_of_the_catalogue_and_every_figure_of_the_trial() -> None:
    measured, _, trial = (
        (ROOT / "docs" / "compression-results.md").read_text(encoding="utf-8").partition("## Bytes beside an earlier trial")
    )

    assert {name for name in TECHNIQUES if name not in measured} == set()
    assert trial.count("\n| `") == len(figures())

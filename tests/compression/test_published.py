"""What is known of a technique before it is measured: published losses and times, and the name of the model that they are of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.compression import __main__ as benchmark
from benchmarks.compression.trial import HELD, Figure
from profiler.compression import published
from profiler.compression.experiment import Experiment
from profiler.compression.lab import MODELS
from profiler.compression.published import Published
from profiler.compression.result import ResultStore
from profiler.compression.target import Candidate, Goal, Known, Target, candidates
from tests.compression.results import result
from tests.conftest import ROOT

TITLES = {"smollm2": "On a real model"} | {name: model.label for name, model in MODELS.items() if name not in ("lab", "smollm2")}
"""Of the sections of the page of results."""
SMALL = Target(goal=Goal.MEMORY, ratio=0.5, loss_gain=0.05)
ROWS = {
    "lab": {
        "ans": {"loss_gain": 0.0, "time_ratio": 1.0},
        "packed-int": {"loss_gain": 0.009, "time_ratio": 1.1},
        "bfloat16": {"loss_gain": 0.0003, "time_ratio": 0.6},
        "prune-global + fine-tune": {"loss_gain": 0.006, "time_ratio": 0.9},
        "k-means + huffman": {"loss_gain": 0.003, "time_ratio": 1.05},
    },
    "smollm2": {"packed-int": {"loss_gain": 0.6, "time_ratio": 1.2, "held_share": 0.41, "file_share": 0.43}},
}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Publish a few numbers that nobody measured."""
    path = tmp_path / "published.json"
    path.write_text(json.dumps(ROWS))
    monkeypatch.setattr(published, "PATH", path)
    published._rows.cache_clear()
    yield path
    published._rows.cache_clear()


def known(model: str, *stages: str, target: Target = SMALL) -> Candidate:
    wanted = Experiment.of(model, stages).stages
    return next(row for row in candidates(model, target) if row.experiment.stages == wanted)


def found(*stages: str, model: str = "lab") -> Published | None:
    return published.find(model, Experiment.of(model, stages).stages)


@pytest.mark.usefixtures("rows")
def test_loss_and_time_come_from_this_model_where_it_was_published_and_else_from_the_labs_llama_by_name() -> None:
    own, borrowed, lab, none = (
        known(*names) for names in (("smollm2", "packed-int"), ("smollm2", "bfloat16"), ("lab", "bfloat16"), ("lab", "nf4"))
    )

    assert (own.known, own.loss_gain, own.time_ratio, own.meets) == (Known.PUBLISHED, 0.6, 1.2, False)
    assert own.reason == "About 0.41 of the bytes in memory, as published of this model. Loss +0.6000, time 1.20: published of this model."
    assert (borrowed.known, borrowed.loss_gain, borrowed.time_ratio) == (Known.LLAMA, 0.0003, 0.6)
    assert borrowed.reason.startswith("About 0.50 of the bytes in memory, by formula. ")
    assert borrowed.reason.endswith("Loss +0.0003 nats per byte, time 0.60: measured on the lab's Llama; this model may lose more.")
    assert (lab.known, lab.loss_gain) == (Known.LLAMA, 0.0003)
    assert lab.reason.endswith("measured on the lab's Llama.")
    assert (none.known, none.loss_gain, none.time_ratio) == (Known.NOTHING, None, None)
    assert none.reason.endswith("Its loss was not measured on any model.")
    assert not any(row.measured for row in (own, borrowed, lab, none))


@pytest.mark.usefixtures("rows")
def test_what_the_store_has_of_this_model_comes_before_what_was_published_and_the_newest_first() -> None:
    newest, older = result("packed-int", model="smollm2", loss=1.9), result("packed-int", model="smollm2", loss=1.5)
    other = result("bfloat16", loss=9.0)  # of the lab's Llama, on a page about another model

    ranked = candidates("smollm2", SMALL, [newest, older, other])

    by_stage = {row.experiment.technique: row for row in ranked}
    assert (by_stage["packed-int"].known, by_stage["packed-int"].loss_gain) == (Known.MEASURED, pytest.approx(0.5))
    assert (by_stage["bfloat16"].known, by_stage["bfloat16"].loss_gain) == (Known.LLAMA, 0.0003)


@pytest.mark.usefixtures("rows")
def test_what_is_known_of_this_model_comes_before_what_only_another_lost_less_of() -> None:
    loose = Target(goal=Goal.MEMORY, ratio=0.9, loss_gain=10.0)

    meeting = [row for row in candidates("smollm2", loose, [result("nf4", model="smollm2", loss=1.9)]) if row.meets]

    assert [(row.experiment.technique, row.borrowed) for row in meeting[:3]] == [("nf4", False), ("packed-int", False), ("bfloat16", True)]
    assert not any(row.borrowed for row in candidates("lab", loose))


@pytest.mark.usefixtures("rows")
def test_coders_keep_loss_and_time_and_sparse_storage_the_loss_alone() -> None:
    assert found("bfloat16", "ans") == Published(loss_gain=0.0003, time_ratio=0.6)
    assert found("k-means", "ans") == found("k-means") == Published(loss_gain=0.003, time_ratio=1.05)
    assert found("prune-global", "fine-tune", "store-bitmask") == Published(loss_gain=0.006, time_ratio=None)
    assert found("prune-global", "fine-tune", "store-bitmask", "zstd") == Published(loss_gain=0.006, time_ratio=None)
    assert found("prune-global:amount=0.7", "fine-tune", "store-bitmask") is None
    assert found("prune-global") is None
    assert found("bfloat16", model="lab-lstm") is None


@pytest.mark.usefixtures("rows")
def test_bytes_are_those_published_of_this_very_experiment_and_what_a_coder_makes_of_other_weights_is_said_to_be_of_those() -> None:
    on_disk = replace(SMALL, goal=Goal.DISK)

    assert known("smollm2", "packed-int", target=on_disk).ratio == 0.43
    assert found("packed-int", "ans", model="smollm2") == Published(loss_gain=0.6, time_ratio=1.2)
    coded, plain = (known("smollm2", *stages, target=on_disk) for stages in (("ans",), ("bfloat16",)))
    assert coded.reason.startswith("About 0.83 of the bytes on disk, if its weights are coded as well as the lab's Llama's. Loss")
    assert plain.reason.startswith("About 0.50 of the bytes on disk, by formula.")


@pytest.mark.usefixtures("rows")
def test_a_candidate_of_which_a_time_or_loss_is_not_known_does_not_meet_a_target_that_asks_for_it() -> None:
    stages = ("prune-global:amount=0.5", "fine-tune", "store-bitmask")
    loose = Target(goal=Goal.MEMORY, ratio=0.9, loss_gain=10.0)

    assert known("lab", *stages, target=loose).meets
    assert not known("lab", *stages, target=replace(loose, time_ratio=100.0)).meets
    assert not known("lab", "nf4", target=loose).meets


def test_shares_that_follow_the_llamas_widths_are_expected_of_it_alone() -> None:
    def techniques(model: str) -> set[str]:
        return {row.experiment.stages[0].name for row in candidates(model, SMALL)}

    assert techniques("lab") - techniques("smollm2") == {"low-rank", "layer-drop"}


def test_of_every_candidate_the_labs_llama_has_a_published_loss() -> None:
    assert {row.known for row in candidates("lab", SMALL)} == {Known.LLAMA}


def test_what_was_published_is_what_the_page_of_results_says() -> None:
    page = (ROOT / "docs" / "compression-results.md").read_text(encoding="utf-8")
    lines = page.partition("## Every technique")[2].partition("## ")[0].splitlines()
    cells = {line.split(" | ")[0].strip("| `"): line.split(" | ") for line in lines if line.startswith("| `")}
    data = json.loads(published.PATH.read_text(encoding="utf-8"))

    assert len(data["lab"]) > 60
    for technique, row in data["lab"].items():
        assert cells[technique][5].split()[0] == f"{row['loss_gain']:+.4f}", "python -m benchmarks.compression --kept --publish writes both"
        assert [cells[technique][2], cells[technique][3].split()[0]] == [f"{row[name]:.3f}" for name in ("held_share", "file_share")]
        assert float(cells[technique][7]) == pytest.approx(row["time_ratio"], abs=0.006)
    sections = {name: page.partition(f"## {title}\n")[2].partition("\n## ")[0] for name, title in TITLES.items()}
    assert data.keys() == {"lab", *sections}
    assert not [(name, technique) for name in sections for technique in data[name] if f"| `{technique}` |" not in sections[name]]


def test_publishing_writes_the_page_and_what_is_expected_from_the_same_rows(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.compression.trial.figures", lambda: (Figure(stages=("bfloat16",), quantity=HELD, share=0.5),))
    monkeypatch.setattr(benchmark, "PAGE", tmp_path / "page.md")
    store = ResultStore(tmp_path)
    monkeypatch.setenv("HEADROOM_HOME", str(tmp_path))
    measured = (
        result(name, model=model, loss=loss) for name, model, loss in (("packed-int", "smollm2", 2.0), ("prune-global", "lab-lstm", 1.5))
    )
    for index, one in enumerate((result("nf4", loss=1.405, seconds=1.3), *measured)):
        store.add(f"key{index}", one)

    assert benchmark.main(["--kept", "--publish"]) == 0

    assert json.loads(rows.read_text()) == {
        "lab": {"nf4": {"loss_gain": 0.005, "time_ratio": 1.3, "held_share": 0.5, "file_share": 0.6}},
        "smollm2": {"packed-int": {"loss_gain": 0.6, "time_ratio": 1.0, "held_share": 0.5, "file_share": 0.6}},
        "lab-lstm": {"prune-global": {"loss_gain": 0.1, "time_ratio": 1.0, "held_share": 0.5, "file_share": 0.6}},
    }
    assert "| `nf4` | 1 | 0.500 | 0.600 |" in (tmp_path / "page.md").read_text()
    with pytest.raises(SystemExit):
        benchmark.main(["--kept", "--publish", "--model", "smollm2"])
    assert "is for the model 'lab'" in capsys.readouterr().err

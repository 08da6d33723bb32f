"""Times of sparse products: measured, kept, where a format begins to be faster, and told on the command line."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from profiler.cli import compress, main
from profiler.compression.measure_products import measure_products
from profiler.compression.products import FORMATS, SHARES, Products, ProductTime, break_even_in_time, times_of
from profiler.compression.sparse_formats import FORMATS as STORED
from profiler.errors import JobFailed, SpecError
from profiler.jobs.facts import products_asked
from profiler.jobs.lab_runs import LabRuns, answered
from tests.conftest import ROOT

SMALL = Products(rows=64, columns=64, inputs=8)
WORKER = (sys.executable, "-m", "tests.compression.fake_lab_worker")


def timed(name: str, *pairs: tuple[float, float]) -> list[ProductTime]:
    return [ProductTime(format=name, zeros=zeros, seconds=ratio / 1000, ratio=ratio) for zeros, ratio in pairs]


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the worker says instead of measuring."""
    path = tmp_path / "said.json"
    monkeypatch.setenv("HEADROOM_TEST_ANSWER", str(path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return path


def test_a_small_measurement_has_a_row_for_each_format_and_share_and_says_how_far_it_is() -> None:
    told: list[tuple[str, float]] = []
    rows = measure_products(SMALL, lambda phase, share: told.append((phase, share)), shares=(0.0, 0.9), rounds=1)

    assert [(row.zeros, row.format) for row in rows] == [(share, name) for share in (0.0, 0.9) for name in FORMATS]
    assert all(row.seconds > 0 < row.ratio for row in rows)
    assert told[0] == ("coo with 0% zeros", 0.0)
    assert [share for _, share in told] == pytest.approx([index / 18 for index in range(18)])


def test_every_format_of_the_chart_has_a_time() -> None:
    times = [row for name in FORMATS for row in timed(name, (0.0, 2.0))]

    assert all(times_of(times, name) for name in STORED)
    assert [row.format for row in times_of(times, "csr-as-torch-makes-it")] == ["csr-int64"]


def test_times_are_measured_once_and_read_the_second_time(home: Path, answer: Path) -> None:
    times = timed("coo", (0.5, 2.0))
    answer.write_text(json.dumps({"result": [asdict(row) for row in times]}))

    assert answered(LabRuns(command=WORKER), products_asked(SMALL)) == times

    assert answered(LabRuns(command=("never",)), products_asked(SMALL)) == times
    assert products_asked(Products(rows=64, columns=64, inputs=1)).find() is None
    assert len(list((home / "compression").iterdir())) == 1


@pytest.mark.parametrize("said", ['{"result": {"no": "list"}}', '{"result": [{"zeros": 1}]}', '{"result": null}'])
def test_a_worker_that_says_something_else_is_told(answer: Path, said: str) -> None:
    answer.write_text(said)

    with pytest.raises(JobFailed, match="64 x 64 with 8 inputs could not be measured: the worker said something else"):
        answered(LabRuns(command=WORKER), products_asked(SMALL))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"rows": 72}, "multiples of 32"),
        ({"columns": 0}, "multiples of 32"),
        ({"rows": 65_536, "columns": 65_536}, "at most 4,194,304 numbers"),
        ({"inputs": 0}, "Take 1 to 512"),
    ],
)
def test_a_shape_that_cannot_be_timed_is_refused(shape: dict[str, int], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Products(**shape)


def test_break_even_lies_between_the_last_slower_and_the_first_faster_measurement() -> None:
    times = timed("coo", (0.0, 4.0), (0.7, 1.5), (0.9, 0.5))

    assert break_even_in_time(times, "coo") == pytest.approx(0.8)
    assert break_even_in_time(times[:2], "coo") is None
    assert break_even_in_time(times[2:], "coo") == 0.9
    assert break_even_in_time(times, "bitmask") is None


def test_the_command_tells_from_how_many_zeros_on_a_format_saves_bytes_and_time(
    answer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = [row for name in FORMATS for row in timed(name, *((share, 2.0 if share < 0.9 else 0.5) for share in SHARES))]
    answer.write_text(json.dumps({"result": [asdict(row) for row in times]}))
    monkeypatch.setattr(compress, "LabRuns", partial(LabRuns, command=WORKER))
    shape = ["--rows", "64", "--columns", "64", "--inputs", "8"]

    assert main(["compress", "--break-even", *shape, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(["compress", "--break-even", *shape]) == 0
    text = capsys.readouterr().out

    bitmask = next(row for row in facts["formats"] if row["name"] == "bitmask")
    assert (facts["rows"], facts["columns"], facts["inputs"]) == (64, 64, 8)
    assert bitmask["bytes_break_even"] == pytest.approx(1 / 32, abs=1 / 64**2)
    assert bitmask["time_break_even"] == pytest.approx(0.8 + 0.1 * 2 / 3)
    assert len(facts["times"]) == len(times)
    assert next(line for line in text.splitlines() if line.startswith("Bitmask")).split()[1:3] == ["3.1%", "86.7%"]
    assert main(["compress", "--break-even", "--rows", "3"]) == 2

"""The benchmark of recorded GPU runs: its table and exit code, and that an RTX A6000's runs are predicted to the byte."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_runs import steps
from benchmarks.gpu_runs.__main__ import ROOT, main
from benchmarks.gpu_runs.schema import Comparison, is_before

A6000_FILE = ROOT.parent / "shared" / "data" / "gpu_runs.json"


def recorded_file() -> Path:
    if not A6000_FILE.is_file():
        reason = "the shared data are not beside this checkout"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return A6000_FILE


def comparisons(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main([str(recorded_file()), "--json", *arguments]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_a_prompt_of_llama_3b_is_predicted_to_the_byte(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = comparisons(capsys, "--only", "a6000-04")
    assert row["id"] == "a6000-04"
    assert [row[f"{name}_diff_bytes"] for name in steps.ALLOWED_BYTES] == [0, 0, 0, 0]
    assert row["rules"] == ["transformers before 5.0 keeps one buffer of rotary frequencies, not two"]


@pytest.mark.slow
def test_every_run_of_the_a6000_is_predicted_to_the_byte(capsys: pytest.CaptureFixture[str]) -> None:
    rows = comparisons(capsys)
    assert len(rows) >= 7
    off = {row["id"]: {name: row[f"{name}_diff_bytes"] for name in steps.ALLOWED_BYTES} for row in rows}
    assert all(set(differences.values()) == {0} for differences in off.values()), off


def comparison(peak: int, states: int) -> Comparison:
    predicted = {"peak": peak, "states": states}
    run = {"id": "x", "model": "m", "workload": "train", "gpu": "g"}
    return Comparison(run, predicted, {"peak": 1000, "states": 1000}, {"peak": 0, "states": 8}, 1.5, ("a rule",))


def test_a_quantity_is_missed_when_it_is_further_off_than_allowed() -> None:
    assert comparison(1000, 1008).missed == []
    assert comparison(999, 1009).missed == ["peak", "states"]


def test_a_missed_target_is_printed_and_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs.json"
    file.write_text(json.dumps({"runs": [{"id": "x", "measured_bytes": {}}]}))
    monkeypatch.setattr(steps, "compare", lambda run: comparison(999, 1000))
    assert main([str(file)]) == 1
    printed = capsys.readouterr().out
    assert "-1  missed" in printed
    assert "rule: a rule" in printed
    assert "1 runs: 0 within their targets, 1 not." in printed


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none.json")])
    assert "none.json is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recorded", "version", "expected"),
    [("4.57.6", (5,), True), ("5.0.0", (5,), False), ("2.9.1+cu130", (2, 13), True), ("2.14.1", (2, 13), False)],
)
def test_versions_are_compared_by_number(recorded: str, version: tuple[int, ...], expected: bool) -> None:
    assert is_before({"versions": {"library": recorded}}, "library", version) is expected

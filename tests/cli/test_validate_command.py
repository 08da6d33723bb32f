"""``validate``: a job measured and simulated on this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gpu_runs.__main__ import main as predict
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Workload
from tests.cli.conftest import Run


def jobs_file(folder: Path) -> Path:
    path = folder / "jobs.json"
    path.write_text(json.dumps([Job(model=Model(name="tiny-llama"), workload=Workload(seq=32, steps=1)).to_json()]))
    return path


def test_differences_are_printed_and_the_measured_run_is_recorded(run: Run, tmp_path: Path) -> None:
    record = tmp_path / "truth.json"
    code, out, _ = run("validate", str(jobs_file(tmp_path)), "--json", "--record", str(record))

    (result,) = json.loads(out)
    assert code == 0
    assert result["largest_difference_bytes"] == result["peak"]["difference_bytes"] == 0
    assert result["peak"]["simulated_bytes"] == result["peak"]["measured_bytes"]
    assert result["measured_only_bytes"] == {}
    (truth,) = json.loads(record.read_text())["runs"]
    assert truth["measured_bytes"]["total"] == result["peak"]["measured_bytes"]
    measured = truth["measured_bytes"]
    assert measured["weights"] + measured["states"] + measured["peak"] == measured["total"]
    assert truth["gpu"] == "cpu"


def test_a_difference_above_the_tolerance_ends_with_four(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def simulate_a_longer_batch(job: Job, path: Path) -> None:
        simulate_job(replace(job, workload=replace(job.workload, seq=40)), path)

    monkeypatch.setattr("profiler.planner.validation.simulate_job", simulate_a_longer_batch)
    code, out, _ = run("validate", str(jobs_file(tmp_path)), "--tolerance", "1B")
    assert code == 4
    assert "less have no named mechanism." in out


@pytest.mark.parametrize("text", ["{", "[]", '{"model": 1}', "[1]"])
def test_a_file_that_holds_no_jobs_is_refused(run: Run, tmp_path: Path, text: str) -> None:
    path = tmp_path / "jobs.json"
    path.write_text(text)
    code, out, err = run("validate", str(path))
    assert (code, out) == (2, "")
    assert err.startswith("headroom: ")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_the_default_jobs_are_simulated_to_the_byte(run: Run) -> None:
    code, out, _ = run("validate", "--json", "--tolerance", "0B")
    results = json.loads(out)
    assert code == 0, [(result["title"], result["largest_difference_bytes"]) for result in results]
    assert len(results) == 7


def test_what_was_recorded_is_predicted_by_the_benchmark_of_recorded_runs(run: Run, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [{"model": {"name": "tiny-lstm"}, "workload": {"batch": 1, "seq": 8, "steps": 1}}]
    (here / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    assert run("validate", here / "jobs.json", "--record", here / "truth.json").code == 0

    assert predict([str(here / "truth.json"), "--json"]) == 0

    (row,) = json.loads(capsys.readouterr().out)
    assert row["weights_diff_bytes"] == 0
    assert row["peak_diff_bytes"] == 0
    assert row["explanation"] == ""

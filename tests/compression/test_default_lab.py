"""The default lab: every technique and pipeline, once, possible, and the controls first."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial

import psutil
import pytest

from profiler.cli import lab_default, main
from profiler.compression import default_lab as module
from profiler.compression.default_lab import default_lab
from profiler.compression.experiment import Experiment
from profiler.compression.registry import PIPELINES, TECHNIQUES
from profiler.compression.result import Result
from profiler.errors import JobFailed, SpecError
from profiler.jobs.experiments import measure_each
from profiler.jobs.lab_runs import LabStatus
from profiler.jobs.run import RunState
from tests.conftest import ROOT

WORKER = (sys.executable, "-m", "tests.compression.fake_lab_worker")


@pytest.fixture
def workers() -> Callable[[], int]:
    """Count the child processes of this one beyond those that other tests left: a browser, an app."""
    others = set(psutil.Process().children())
    return lambda: len(set(psutil.Process().children()) - others)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_every_technique_and_every_pipeline_is_in_the_default_lab_once() -> None:
    experiments = default_lab("lab")
    stages = [one.stages for one in experiments]

    assert {item.name for one in experiments for item in one.techniques} == set(TECHNIQUES)
    assert len(set(stages)) == len(stages) == len(TECHNIQUES) + len(PIPELINES)


def test_what_is_a_control_of_others_is_measured_before_them() -> None:
    experiments = default_lab("lab")
    controls = {control for one in experiments for control in one.controls.values()}

    assert controls == {experiments[0]}


def test_what_cannot_be_measured_here_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "to_install", lambda needs: "Install it." if "torchao" in needs else None)

    assert not any("torchao" in item.needs for one in default_lab("lab") for item in one.techniques)
    assert default_lab("lab")


def test_formats_that_leave_zeros_out_follow_what_makes_zeros_and_indices_what_is_shared() -> None:
    before = {one.stages[-1].name: str(one.stages[0]) for one in default_lab("lab") if len(one.stages) == 2}

    assert before == {
        "store-csr": "prune-global:amount=0.7",
        "store-coo": "prune-global:amount=0.7",
        "store-bsr": "prune-blocks:amount=0.7",
        "store-bitmask": "prune-global:amount=0.7",
        "store-2-4": "prune-2-4",
        "fixed": "k-means",
        "huffman": "k-means",
    }


def test_many_are_measured_two_at_a_time_and_one_that_fails_does_not_stop_the_others(workers: Callable[[], int]) -> None:
    wanted = [Experiment.of(model, ("bfloat16",)) for model in ("tiny", "refused", "broken", "tiny-lstm")]
    most = 0

    def count(status: LabStatus[Result]) -> None:
        nonlocal most
        most = max(most, workers())

    found = dict(measure_each(wanted, workers=2, command=WORKER, progress=count))

    assert list(map(type, (found[one] for one in wanted))) == [Result, JobFailed, JobFailed, Result]
    assert "This model is not here" in str(found[wanted[1]])
    assert most == 2
    again = list(measure_each(wanted[:1], command=("never",)))
    assert again == [(wanted[0], found[wanted[0]])]


def test_what_a_missing_package_forbids_is_told_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler.jobs.experiments.to_install", lambda needs: "Install it." if "torchao" in needs else None)
    wanted = [Experiment.of("tiny", (name,)) for name in ("int8-weight-only", "bfloat16")]

    found = dict(measure_each(wanted, command=WORKER))

    assert isinstance(found[wanted[0]], SpecError)
    assert isinstance(found[wanted[1]], Result)


def test_no_worker_goes_on_when_the_caller_stops(workers: Callable[[], int]) -> None:
    class Stopped(Exception):
        pass

    def stop(status: LabStatus[Result]) -> None:
        if status.state is RunState.RUNNING and status.rss_bytes:
            raise Stopped

    with pytest.raises(Stopped):
        list(measure_each([Experiment.of("slow", (), seed=seed) for seed in range(3)], command=WORKER, progress=stop))

    assert not workers()


def test_the_command_prints_the_default_lab_as_it_goes_and_as_one_json_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lab_default, "default_lab", lambda model: [Experiment.of(model, (name,)) for name in ("bfloat16", "zstd")])
    monkeypatch.setattr(lab_default, "measure_each", partial(measure_each, command=WORKER))

    assert main(["compress", "--model", "tiny", "--all"]) == 0
    text = capsys.readouterr().out
    assert main(["compress", "--model", "tiny", "--all", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)

    assert " 0.500" in text
    assert "2 experiments in" in text
    assert {one["technique"] for one in data["results"]} == {"bfloat16", "zstd"}
    assert data["failures"] == {}


def test_a_part_of_the_default_lab_that_failed_is_told_and_the_exit_code_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lab_default, "default_lab", lambda model: [Experiment.of(model, ("bfloat16",))])
    monkeypatch.setattr(lab_default, "measure_each", partial(measure_each, command=WORKER))

    assert main(["compress", "--model", "broken", "--all"]) == 3
    assert "the weights are not what they were" in capsys.readouterr().err
    assert main(["compress", "--all", "--workers", "0"]) == 2
    assert "from 1 to 64" in capsys.readouterr().err

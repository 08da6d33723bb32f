"""The runs of a comparison through real worker processes whose engine records nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from profiler.jobs.comparing import ComparisonRuns
from profiler.jobs.manager import JobManager
from profiler.jobs.run import CAPTURE, RunState
from profiler.planner.comparison import Compared, Comparison, parse_toggles
from profiler.spec import Job, Model, Workload

COMPARISON = Comparison(
    baseline=Job(model=Model(name="tiny-llama"), workload=Workload(batch=2, seq=8)),
    toggles=parse_toggles(["bfloat16", "checkpointing"]),
)
COMPARISON_OF_THREE = replace(COMPARISON, toggles=parse_toggles(["bfloat16", "checkpointing", "sgd"]))
NUM_RUNS = 4
Start = Callable[..., ComparisonRuns]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    managers = []

    def make(worker: str, comparison: Comparison = COMPARISON) -> ComparisonRuns:
        managers.append(JobManager(home, worker_command=(sys.executable, "-m", *worker.split())))
        return ComparisonRuns(managers[-1], comparison, CAPTURE)

    yield make
    for manager in managers:
        manager.close()


def finished(runs: ComparisonRuns) -> Compared:
    end = time.monotonic() + 60
    compared = runs.advance()
    while not runs.ended:
        assert time.monotonic() < end, runs.runs
        time.sleep(0.05)
        compared = runs.advance()
    return compared


def test_every_run_is_made_and_found_again_at_once(start: Start) -> None:
    compared = finished(start("tests.jobs.fake_worker"))
    again = start("tests.jobs.fake_worker")
    known = again.advance()
    assert len(compared.footprints) == NUM_RUNS
    assert set(known.footprints) == set(compared.footprints)
    assert again.ended
    assert all(run.status is None for run in again.runs.values()), "nothing was submitted"


def test_the_asked_combination_comes_first_and_then_a_few_at_once(start: Start) -> None:
    runs = start("tests.jobs.fake_worker", COMPARISON_OF_THREE)
    asked = {(), COMPARISON_OF_THREE.toggles}
    end = time.monotonic() + 60
    while not all(run.ended for run in runs.runs.values()):
        assert time.monotonic() < end, runs.runs
        begun = {switched for switched, run in runs.runs.items() if run.state is not None}
        assert begun <= asked or all(runs.runs[switched].ended for switched in asked)
        assert sum(run.state is not None and not run.ended for run in runs.runs.values()) <= 3
        runs.advance()
        time.sleep(0.02)


def test_the_loss_of_a_worker_is_survived(start: Start) -> None:
    compared = finished(start("tests.jobs.flaky_worker 1"))
    assert len(compared.footprints) == NUM_RUNS


def test_a_run_whose_worker_is_lost_again_has_failed(start: Start) -> None:
    runs = start("tests.jobs.flaky_worker 2")
    compared = finished(runs)
    assert {run.state for run in runs.runs.values()} == {RunState.FAILED}
    assert all(run.message for run in runs.runs.values())
    assert not compared.footprints
    assert not compared.savings


def test_a_cancelled_comparison_keeps_what_is_done_and_starts_nothing_more(start: Start) -> None:
    runs = start("tests.jobs.fake_worker", COMPARISON_OF_THREE)
    while not runs.advance().footprints:
        time.sleep(0.02)
    runs.cancel()
    compared = finished(runs)
    assert compared.footprints
    assert any(run.state is None for run in runs.runs.values())

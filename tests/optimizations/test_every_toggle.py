"""Every optimization of the registry, measured and simulated on this machine: the same bytes at every phase, the peak and every category.

No block is left out. What cannot run here is held by the test that `ORACLES` names.
"""

from __future__ import annotations

import ast
import gc
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest

from profiler.analysis.equality import compare_recordings
from profiler.analysis.timeline import Timeline
from profiler.capture import engine
from profiler.capture.repeated import Repeated
from profiler.errors import SpecError
from profiler.optimizations.registry import REGISTRY, validate
from profiler.planner.validation import measure_and_simulate
from profiler.recording import Provenance, Recording
from profiler.spec import Job
from tests.conftest import ROOT
from tests.optimizations.cases import CASES, NO_OTHER_BYTES, ORACLES, Case, default_case


@dataclass(frozen=True)
class Pair:
    """The recordings of one job."""

    measured: Recording
    simulated: Recording


@cache
def run_both(job: Job) -> Pair:
    """Return both recordings of a validated job."""
    gc.collect()  # models of earlier runs that refer to themselves would be freed in the midst of this one
    gc.freeze()  # a million objects need not be looked through again
    try:
        with TemporaryDirectory() as folder, patch.object(engine, "repeat_job", lambda *_: Repeated()):  # its times are of no interest here
            return Pair(*measure_and_simulate(job, "cpu", Path(folder)))
    finally:
        gc.unfreeze()


def runs_here(name: str) -> bool:
    """Return whether a CPU can run an optimization on both engines."""
    if REGISTRY[name].engines != {Provenance.MEASURED, Provenance.SIMULATED}:
        return False
    try:
        return validate(default_case(name).job) is not None
    except SpecError:
        return False


HERE = tuple(name for name in REGISTRY if runs_here(name))
ALL_CASES = (
    *map(default_case, HERE),
    *(pytest.param(extra, marks=pytest.mark.slow) for extras in CASES.values() for extra in extras),
)


@pytest.mark.parametrize("wanted", ALL_CASES, ids=str)
def test_measured_and_simulated_bytes_are_equal(wanted: Case) -> None:
    job = validate(wanted.job)
    pair = run_both(job)

    equality = compare_recordings(pair.measured, pair.simulated)

    assert equality.largest_difference == 0, [phase for phase in equality.phases if phase.end.difference or phase.peak.difference]


@pytest.mark.parametrize("name", HERE)
def test_a_toggle_changes_bytes_somewhere_or_says_that_it_does_not(name: str) -> None:
    job = validate(default_case(name).job)
    baseline = validate(Job(model=job.model, workload=default_case(name).job.workload))
    if job == baseline:
        return  # what holds where nothing is switched on
    with_it, without_it = run_both(job).simulated, run_both(baseline).simulated
    is_changed = not np.array_equal(Timeline.of(with_it).total, Timeline.of(without_it).total)

    assert is_changed != (name in NO_OTHER_BYTES) or with_it.metadata.facts["notes"]


@pytest.mark.parametrize("name", REGISTRY)
def test_what_does_not_run_here_on_both_engines_is_held_by_another_test(name: str) -> None:
    assert (name in ORACLES) != (name in HERE), f"{name}: name the test of its bytes in tests/optimizations/cases.py::ORACLES"


@pytest.mark.parametrize(("name", "test"), ORACLES.items())
def test_the_test_that_stands_for_a_toggle_exists(name: str, test: str) -> None:
    path, _, function = test.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))

    assert name in REGISTRY
    assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_case_is_of_a_toggle_of_the_registry() -> None:
    assert not (CASES.keys() | NO_OTHER_BYTES.keys()) - REGISTRY.keys()

"""A search that runs like any other run: what it writes, and what it tells while it is at work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiler.planner import engine
from profiler.recording import Phase, Provenance, Role
from profiler.spec import Job, Model, Workload
from profiler.storage import read_recording, write_recording
from profiler.tracing.progress import Progress
from profiler.units import GIB
from tests.builders import Tape

JOB = Job(model=Model(name="tiny-gpt2"), workload=Workload(batch=1, seq=64), device="rtx-4090")


@pytest.fixture
def gib_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of simulating: weights of 4 GiB, and 1 GiB for every sequence of 64 tokens."""

    def simulate(job: Job, path: Path, *, progress: Any) -> None:
        progress(Progress(0, 2, "forward"))
        tape = Tape(device=0)
        tape.preexisting(4 * GIB, roles=Role.PARAMETER)
        with tape.step(0), tape.phase(Phase.FORWARD):
            tape.free(tape.alloc(job.workload.batch * job.workload.seq // 64 * GIB, roles=Role.SAVED))
        write_recording(tape.recording(provenance=Provenance.SIMULATED, job=job.to_json()), path)

    monkeypatch.setattr(engine, "simulate_job", simulate)


def test_the_recording_is_that_of_the_largest_batch_with_the_way_to_it(tmp_path: Path, gib_a_sequence: None) -> None:
    metadata = engine.find_largest_batch(JOB, tmp_path / "found.headroom", key="a search")
    found = read_recording(tmp_path / "found.headroom").metadata

    assert (found.id, found.key) == (metadata.id, "a search")
    assert found.job is not None
    assert found.job["workload"]["batch"] == found.facts["largest"]["value"] == 19  # 4 + 19 of 23.5 GiB, half of one for the context
    assert found.facts["largest"]["bound"] == "memory"


def test_the_longest_sequence_is_in_steps_of_64(tmp_path: Path, gib_a_sequence: None) -> None:
    engine.find_longest_sequence(JOB, tmp_path / "found.headroom")

    assert read_recording(tmp_path / "found.headroom").metadata.facts["largest"]["value"] % 64 == 0


def test_where_nothing_fits_the_smallest_is_what_was_recorded(tmp_path: Path, gib_a_sequence: None) -> None:
    engine.find_largest_batch(replace(JOB, workload=replace(JOB.workload, seq=64 * 30)), tmp_path / "found.headroom")
    found = read_recording(tmp_path / "found.headroom").metadata

    assert found.facts["largest"]["value"] is None
    assert found.job is not None
    assert found.job["workload"]["batch"] == 1


def test_progress_names_the_candidate_and_counts_simulations(tmp_path: Path, gib_a_sequence: None) -> None:
    told: list[Progress] = []

    engine.find_largest_batch(JOB, tmp_path / "found.headroom", progress=told.append)

    assert told[0].phase == "batch 1: forward"
    assert [place.step for place in told] == list(range(len(told)))

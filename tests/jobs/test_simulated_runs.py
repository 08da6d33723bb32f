"""A job for a GPU that is not here, through a real worker, into the store."""

from __future__ import annotations

import time
from pathlib import Path

from profiler.jobs.manager import JobManager
from profiler.jobs.run import SIMULATE, RunState, RunStatus
from profiler.recording import Provenance
from profiler.spec import Job, Model, Workload
from profiler.storage import read_recording

JOB = Job(model=Model(name="tiny-llama"), workload=Workload(seq=16, steps=1), device="rtx-4090")


def simulated(manager: JobManager, job: Job) -> RunStatus:
    run = manager.submit(job, engine=SIMULATE)
    end = time.monotonic() + 120
    while not (status := manager.status(run.run_id)).state.final:
        assert time.monotonic() < end, status
        time.sleep(0.05)
    return status


def test_a_simulation_becomes_a_recording_and_is_found_again(home: Path) -> None:
    manager = JobManager(home)
    status = simulated(manager, JOB)
    again = manager.submit(JOB, engine=SIMULATE)
    unknown = simulated(manager, Job(model=JOB.model, workload=JOB.workload, device="rtx-9090"))
    manager.close()

    assert status.state is RunState.DONE, status.message
    assert status.recording_path is not None
    metadata = read_recording(status.recording_path).metadata
    assert (metadata.provenance, metadata.device["name"]) == (Provenance.SIMULATED, "GeForce RTX 4090")
    assert again.from_store
    assert again.recording_id == status.recording_id
    assert (unknown.state, unknown.refused) == (RunState.FAILED, True)
    assert "rtx-9090" in unknown.message

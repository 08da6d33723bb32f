"""A `Job` -> its recording, simulated: the workload runs on fake tensors as if on the job's device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from profiler import workloads
from profiler.devices import Gpu, find_gpu
from profiler.errors import SimulationUnsupported
from profiler.estimate.step_time import Assumptions
from profiler.optimizations.registry import lacks_engine, setup_for, validate
from profiler.recording import Metadata, Provenance
from profiler.simulate.session import Simulation
from profiler.spec import Job
from profiler.tracing.observer import JobObserver, ProgressCallback


def simulate_job(job: Job, path: Path, *, key: str | None = None, progress: ProgressCallback | None = None) -> Metadata:
    """Simulate ``job`` and write its recording to ``path``.

    Args:
        job: what to run; its device is ``cpu`` or the name of a GPU in the catalogue.
        path: the recording's file.
        key: under which the run store finds an equal run again.
        progress: is told at every phase of every step.

    Returns:
        The recording's metadata, with its id.

    Raises:
        SpecError: the job is not possible, or its device is not known.
        SimulationUnsupported: something in it cannot be simulated.
        StorageError: the recording cannot be written.
    """
    job = validate(job)
    reason = lacks_engine(job, Provenance.SIMULATED)
    if reason is not None:
        raise SimulationUnsupported(reason)
    gpu = gpu_of(job)
    torch.set_num_threads(1)
    setup = setup_for(job)
    with Simulation(
        path,
        gpu,
        title=job.title,
        allocator_settings=setup.allocator_settings,
        assumptions=Assumptions(allow_tf32=setup.allow_tf32),
        job=job.to_json(),
        key=key,
        warmup_steps=job.workload.warmup_steps,
    ) as simulation:
        setup.begin_ranks = simulation.ranks.begin
        setup.tell = simulation.tell
        placed = replace(job, device=str(simulation.device))
        workloads.run(placed, setup, JobObserver(simulation, job, progress), read_loss=_no_loss)
        simulation.add_facts(notes=setup.notes)
        return simulation.stop()


def gpu_of(job: Job) -> Gpu | None:
    """Return the card that a job names; None for the CPU.

    Raises:
        SpecError: the name is not in the catalogue.
    """
    return None if job.device == "cpu" else find_gpu(job.device)


def _no_loss(loss: Tensor) -> None:
    """Fake tensors hold no values."""

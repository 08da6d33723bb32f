"""Runs that carry the job which repeats them, as ``python -m profiler validate --record`` writes them: it is simulated for their device.

Quantities are those of `profiler.planner.validation.recorded_run`, taken from the simulated recording as they were from the measured one.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu_runs.schema import Comparison, Run, gpu_of
from benchmarks.gpu_runs.steps import ALLOWED_BYTES
from profiler.planner.validation import recorded_run
from profiler.simulate.engine import simulate_job
from profiler.spec import Job
from profiler.storage import read_recording

CPU = "cpu"


def compare(run: Run) -> Comparison:
    """Simulate a run's job."""
    started = time.perf_counter()
    job = replace(Job.from_json(run["job"]), device=CPU if run["gpu"] == CPU else gpu_of(run).name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.headroom"
        simulate_job(job, path)
        simulated = read_recording(path)
    measured, predicted = run["measured_bytes"], recorded_run(job, simulated)["measured_bytes"]
    here = simulated.metadata.versions
    others = [f"{name} {run['versions'][name]}" for name in ("torch", "transformers") if run["versions"].get(name) != here.get(name)]
    return Comparison(
        run,
        {name: predicted[name] for name in ALLOWED_BYTES},
        {name: measured[name] for name in ALLOWED_BYTES},
        ALLOWED_BYTES,
        time.perf_counter() - started,
        explanation=f"Recorded with {', '.join(others)}; simulated by the installed versions' rules." if others else "",
    )

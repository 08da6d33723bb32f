"""A `Job` -> the recording of the largest batch, or the longest sequence, that fits on its GPU: searches that run like any other run.

The recording is that of the largest candidate that fits, else of the smallest that was tried; its fact ``largest`` says how it was found.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from profiler.devices import find_gpu
from profiler.planner.largest import MAX_SIMULATIONS, Largest, largest_batch, longest_sequence
from profiler.recording import Metadata, Recording
from profiler.simulate.engine import simulate_job
from profiler.spec import Job
from profiler.storage import read_recording, write_recording
from profiler.tracing.observer import ProgressCallback
from profiler.tracing.progress import Progress

FACT = "largest"


def find_largest_batch(job: Job, path: Path, *, key: str | None = None, progress: ProgressCallback | None = None) -> Metadata:
    """Find the largest batch that fits on the job's GPU and write its recording to ``path``.

    Args:
        job: its device is the name of a GPU in the catalogue.
        path: the recording's file.
        key: under which the run store finds an equal search again.
        progress: is told at every phase of every simulation.

    Returns:
        The recording's metadata, with its id.

    Raises:
        SpecError: the job is not possible, or its device is not a GPU of the catalogue.
        SimulationUnsupported: something in it cannot be simulated.
        StorageError: the recording cannot be written.
    """
    return _find(largest_batch, "batch", job, path, key, progress)


def find_longest_sequence(job: Job, path: Path, *, key: str | None = None, progress: ProgressCallback | None = None) -> Metadata:
    """Find the longest sequence that fits on the job's GPU; see `find_largest_batch`."""
    return _find(longest_sequence, "seq", job, path, key, progress)


def _find(search: Callable[..., Largest], what: str, job: Job, path: Path, key: str | None, progress: ProgressCallback | None) -> Metadata:
    with tempfile.TemporaryDirectory(prefix="headroom-") as folder:
        candidates = _Candidates(what, Path(folder), progress)
        found = search(job, find_gpu(job.device), simulate=candidates.simulate)
        best = found.value or min(probe.value for probe in found.probes)
        recording = read_recording(candidates.path_of(best))
    metadata = replace(recording.metadata, key=key, facts=recording.metadata.facts | {FACT: found.to_json()})
    return write_recording(replace(recording, metadata=metadata), path).metadata


class _Candidates:
    """Simulates candidates into a folder, and tells which one it is at."""

    def __init__(self, what: str, folder: Path, progress: ProgressCallback | None) -> None:
        self._what, self._folder, self._progress = what, folder, progress
        self._num_done = 0

    def path_of(self, value: int) -> Path:
        """Return the recording of a candidate."""
        return self._folder / f"{value}.headroom"

    def simulate(self, job: Job) -> Recording:
        """Return the recording of a candidate after simulating it."""
        value = getattr(job.workload, self._what)

        def tell(inner: Progress) -> None:
            if self._progress is not None:
                place = replace(inner, step=self._num_done, num_steps=MAX_SIMULATIONS, phase=f"{self._what} {value:,}: {inner.phase}")
                self._progress(place)

        simulate_job(job, self.path_of(value), progress=tell)
        self._num_done += 1
        return read_recording(self.path_of(value))

"""A `Job` -> the same steps once more without a profiler: what they take, and whether their losses repeat.

A profiler makes steps slower, and unevenly so, so times are taken in a run of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import Optimizer

from profiler import workloads
from profiler.capture.repeated import Repeated
from profiler.optimizations.registry import setup_for
from profiler.recording import Phase
from profiler.spec import Job
from profiler.tracing.observer import ProgressCallback
from profiler.tracing.progress import Progress


def repeat_job(job: Job, progress: ProgressCallback | None = None) -> Repeated:
    """Run a job's steps and return what each took.

    Args:
        job: validated; its device is here.
        progress: is told at every step.
    """
    clock = _Clock(job, progress)
    workloads.run(job, setup_for(job), clock)
    return Repeated(cpu_seconds=tuple(clock.cpu_seconds), wall_seconds=tuple(clock.wall_seconds), losses=tuple(clock.losses))


class _Clock:
    """The `profiler.workloads.Observer` that looks at nothing but the time."""

    def __init__(self, job: Job, progress: ProgressCallback | None) -> None:
        self._on_gpu = torch.device(job.device).type == "cuda"
        self._warmup_steps = job.workload.warmup_steps
        self._num_steps = job.workload.warmup_steps + job.workload.steps
        self._progress = progress or (lambda _: None)
        self._step = 0
        self.cpu_seconds: list[float] = []
        self.wall_seconds: list[float] = []
        self.losses: list[float] = []

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Run as if nobody looked."""
        yield

    @contextmanager
    def step(self, index: int) -> Iterator[None]:
        """Take the time of the step."""
        self._step = index
        self._progress(Progress(index, self._num_steps, "once more for the time"))
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        if self._on_gpu:
            torch.cuda.synchronize()
        if index >= self._warmup_steps:
            self.cpu_seconds.append(time.process_time() - cpu)
            self.wall_seconds.append(time.perf_counter() - wall)

    def built(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Nothing is named here."""

    def scalar(self, name: str, value: float) -> None:
        """Keep the losses that count."""
        if name == "loss" and self._step >= self._warmup_steps:
            self.losses.append(value)

"""What a workload tells while it runs -> the session that records it, and the one who waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
from torch import nn
from torch.optim import Optimizer

from profiler.recording import Phase
from profiler.spec import Job
from profiler.tracing.progress import Progress
from profiler.tracing.session import Session

ProgressCallback = Callable[[Progress], None]


class JobObserver:
    """The `profiler.workloads.Observer` of every engine.

    Args:
        session: records the run.
        job: what runs.
        progress: is told at every phase of every step.
    """

    def __init__(self, session: Session, job: Job, progress: ProgressCallback | None) -> None:
        self._session = session
        self._progress = progress or (lambda _: None)
        self._num_steps = job.workload.warmup_steps + job.workload.steps
        self._step = 0
        self._process = psutil.Process()

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Record the phase and tell of it."""
        rss_bytes = self._process.memory_info().rss
        self._progress(Progress(self._step, self._num_steps, phase.value, self._session.allocated_bytes, rss_bytes))
        with self._session.phase(phase):
            yield

    @contextmanager
    def step(self, index: int) -> Iterator[None]:
        """Record the step; with the last one the recording ends."""
        self._session.step()
        self._step = index
        yield
        self.finish_step()
        if index == self._num_steps - 1:
            self._progress(Progress(self._num_steps, self._num_steps, "saving", self._session.allocated_bytes))
            self._session.pause()  # before the model is let go: the recording ends with what is alive between steps

    def finish_step(self) -> None:
        """Do what an engine needs done before a step counts as over."""

    def built(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Name what the model holds, and keep its size."""
        self._session.add(model, optimizer)
        parameters = list(model.parameters())
        self._session.add_facts(
            num_parameters=sum(parameter.numel() for parameter in parameters),
            num_trained_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        )

    def scalar(self, name: str, value: float) -> None:
        """Record the number."""
        self._session.scalar(name, value)

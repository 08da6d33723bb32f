"""A `Job` -> its recording, measured: the workload runs for real under torch.profiler and the samplers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from torch import nn
from torch.optim import Optimizer

from profiler import workloads
from profiler.capture.progress import Progress
from profiler.capture.recorder import Recorder
from profiler.errors import CaptureUnavailable
from profiler.optimizations.registry import setup_for, validate
from profiler.recording import Metadata, Phase
from profiler.spec import Job

_ProgressCallback = Callable[[Progress], None]


def capture_job(job: Job, path: Path, *, key: str | None = None, progress: _ProgressCallback | None = None) -> Metadata:
    """Run ``job`` on this machine and write its recording to ``path``.

    Args:
        job: what to run; its device is cpu, cuda or cuda:N.
        path: the recording's file.
        key: under which the run store finds an equal run again.
        progress: is told at every phase of every step.

    Returns:
        The recording's metadata, with its id.

    Raises:
        SpecError: the job is not possible.
        CaptureUnavailable: its device is not on this machine.
        StorageError: the recording cannot be written.
    """
    job = validate(job)
    check_device(job.device)
    torch.set_num_threads(1)  # of two shared cores the second can make a step ten times slower, and no number repeatable
    on_gpu = torch.device(job.device).type == "cuda"
    if on_gpu:
        _make_ready(torch.device(job.device))
    setup = setup_for(job)
    recorder = Recorder(
        path, title=job.title, find_steps=False, on_gpu=on_gpu, job=job.to_json(), key=key, warmup_steps=job.workload.warmup_steps
    )
    observer = _JobObserver(recorder, job, progress or (lambda _: None))
    recorder.start()
    try:
        workloads.run(job, setup, observer)
    except BaseException as error:
        recorder.stop(error)
        raise
    return recorder.stop()


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        CaptureUnavailable: measuring on it is not possible here.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return
    if kind != "cuda":
        raise CaptureUnavailable(f"device={device!r} cannot be measured. Use cpu, cuda or cuda:0.")
    if not torch.cuda.is_available():
        raise CaptureUnavailable(
            "No CUDA device is visible (torch.cuda.is_available() is False). Use device cpu, or open a sample recording."
        )
    if index and int(index) >= torch.cuda.device_count():
        raise CaptureUnavailable(f"device={device!r} is not on this machine. It has {torch.cuda.device_count()}, counted from cuda:0.")


def _make_ready(device: torch.device) -> None:
    """Begin on a GPU with nothing cached from earlier runs, and with peaks of this run alone."""
    torch.cuda.set_device(device.index or 0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


class _JobObserver:
    """Passes on to the recorder and to whoever waits what the workload tells."""

    def __init__(self, recorder: Recorder, job: Job, progress: _ProgressCallback) -> None:
        self._recorder = recorder
        self._progress = progress
        self._num_steps = job.workload.warmup_steps + job.workload.steps
        self._step = 0
        self._process = psutil.Process()
        self._on_gpu = torch.device(job.device).type == "cuda"

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        rss_bytes = self._process.memory_info().rss
        self._progress(Progress(self._step, self._num_steps, phase.value, self._recorder.allocated_bytes, rss_bytes))
        with self._recorder.phase(phase):
            yield

    @contextmanager
    def step(self, index: int) -> Iterator[None]:
        self._recorder.step()
        self._step = index
        yield
        if self._on_gpu:
            torch.cuda.synchronize()  # the step's samples cover what it started
        if index == self._num_steps - 1:
            self._progress(Progress(self._num_steps, self._num_steps, "saving", self._recorder.allocated_bytes))
            self._recorder.pause()  # before the model is let go: the recording ends with what is alive between steps

    def built(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        self._recorder.add(model, optimizer)
        parameters = list(model.parameters())
        self._recorder.add_facts(
            num_parameters=sum(parameter.numel() for parameter in parameters),
            num_trained_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        )

    def scalar(self, name: str, value: float) -> None:
        self._recorder.scalar(name, value)

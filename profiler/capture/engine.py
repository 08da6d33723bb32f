"""A `Job` -> its recording, measured: the workload runs for real under torch.profiler and the samplers."""

from __future__ import annotations

from pathlib import Path

import torch

from profiler import workloads
from profiler.capture.gpu import allocating_with
from profiler.capture.recorder import Recorder
from profiler.capture.repeat import repeat_job
from profiler.errors import CaptureUnavailable
from profiler.optimizations.registry import lacks_engine, setup_for, validate
from profiler.recording import Metadata, Provenance
from profiler.spec import Job
from profiler.tracing.observer import JobObserver, ProgressCallback


def capture_job(job: Job, path: Path, *, key: str | None = None, progress: ProgressCallback | None = None) -> Metadata:
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
    reason = lacks_engine(job, Provenance.MEASURED)
    if reason is not None:
        raise CaptureUnavailable(reason)
    check_device(job.device)
    torch.set_num_threads(1)  # of two shared cores the second can make a step ten times slower, and no number repeatable
    setup = setup_for(job)
    with allocating_with(setup.allocator_settings):
        return _record(job, setup, path, key, progress)


def _record(job: Job, setup: workloads.Setup, path: Path, key: str | None, progress: ProgressCallback | None) -> Metadata:
    on_gpu = torch.device(job.device).type == "cuda"
    if on_gpu:
        _make_ready(torch.device(job.device))
    recorder = Recorder(
        path,
        title=job.title,
        find_steps=False,
        on_gpu=on_gpu,
        counts_existing=False,  # a job makes all that it uses; libraries and earlier runs of this process have tensors of their own
        job=job.to_json(),
        key=key,
        warmup_steps=job.workload.warmup_steps,
    )
    setup.tell = recorder.tell
    observer = _MeasuredJob(recorder, job, progress)
    recorder.start()
    try:
        workloads.run(job, setup, observer)
    except BaseException as error:
        recorder.stop(error)
        raise
    recorder.pause()
    recorder.add_facts(notes=setup.notes, **repeat_job(job, progress).to_facts())
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


class _MeasuredJob(JobObserver):
    """On a GPU a step is over when all that it started is done, so that its samples cover it."""

    def __init__(self, recorder: Recorder, job: Job, progress: ProgressCallback | None) -> None:
        super().__init__(recorder, job, progress)
        self._on_gpu = torch.device(job.device).type == "cuda"

    def finish_step(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()

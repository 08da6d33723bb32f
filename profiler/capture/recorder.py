"""Records a program's memory while it runs: windows, hooks and samples -> a recording file, written as it goes.

`Recorder` serves both Headroom's own runs and `record()` around other people's loops. One torch.profiler window covers one step, so that
memory stays flat however long the program runs, and what was recorded survives a kill.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from profiler.capture.gpu import GpuCapture, describe_gpu
from profiler.capture.notebook import ProfilerNotebook
from profiler.capture.samplers import Sampler
from profiler.capture.surroundings import describe_run
from profiler.capture.window import Window
from profiler.errors import CaptureUnavailable
from profiler.recording import Metadata, Provenance, Role
from profiler.storage import SUFFIX
from profiler.tracing.convert import Converter
from profiler.tracing.notes import Label
from profiler.tracing.session import Session, check_kinds

_MAX_WINDOW_SECONDS = 10.0
"""A window of a program that never steps is cut at the next forward after so long, so that memory stays flat."""


class Recorder(Session):
    """One measured recording in progress.

    Args:
        path: where the recording shall be.
        title: one line for lists; by default the file's name.
        metadata: fields of `Metadata` to set, such as job, key and warmup_steps.
        find_steps: begin a new step at the first forward after an optimizer's step, until `step` is called.
        saved_tensors: see `record`.
        on_gpu: whether the program runs on CUDA; by default, where there is a GPU.
        counts_existing: whether tensors that are there before count, as those of a program that has begun do.

    Raises:
        CaptureUnavailable: another profiler is running.
        StorageError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        title: str | None = None,
        find_steps: bool = True,
        saved_tensors: bool = True,
        on_gpu: bool | None = None,
        counts_existing: bool = True,
        **metadata: Any,
    ) -> None:
        on_gpu = torch.cuda.is_available() if on_gpu is None else on_gpu
        rank, path = _rank_and_path(Path(path))
        self._origin_ns = time.time_ns()
        described = Metadata(
            title=title or path.name.removesuffix(SUFFIX),
            provenance=Provenance.MEASURED,
            engine="torch.profiler cuda" if on_gpu else "torch.profiler cpu",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            **{**describe_run(describe_gpu() if on_gpu else None), **metadata},
        )
        self._pages = ProfilerNotebook()
        super().__init__(path, described, self._pages, Converter(self._origin_ns, rank), step=0 if find_steps else -1)
        self._sampler = Sampler()
        self._gpu = GpuCapture(self._origin_ns, rank) if on_gpu else None
        self._find_steps = find_steps
        self._saved_tensors = saved_tensors
        self._counts_existing = counts_existing
        self._window: Window | None = None
        self._window_began = 0.0
        self._preexisting: list[Label] = []
        self._conversion_cpu_s = 0.0
        self._run_cpu_s = 0.0

    def start(self, model: torch.nn.Module | None = None, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Begin: count what exists, put the hooks in place, open the first window."""
        gc.collect()  # what nobody holds any more is not of this run, nor is the moment that Python would find it
        self._preexisting = self._count_existing() if self._counts_existing else []
        if self._gpu is not None:
            self._gpu.start(self._converter)
        try:
            self._window = Window()
        except CaptureUnavailable:
            self._writer.discard()
            raise
        self._sampler.start(self._origin_ns)
        self._hooks.install(saved_tensors=self._saved_tensors)
        self._run_cpu_s -= time.process_time()
        self._window_began = time.monotonic()
        self.add(model, optimizer)

    def step(self) -> None:
        """End a step; the next begins. From the first call on, steps are no longer guessed."""
        self._find_steps = False
        super().step()

    def stop(self, error: BaseException | None = None) -> Metadata:
        """End the recording; see `Session`."""
        self.pause()
        return self._writer.close(self._final_metadata(error))

    def pause(self) -> None:
        """See nothing more; see `Session`."""
        if self._window is not None:
            self._run_cpu_s += time.process_time()
            self._hooks.remove()
            self._flush()
            if self._gpu is not None:
                self._gpu.stop()
            self._sampler.stop()
            self._writer.add("samples", self._sampler.drain())

    def _before_forward(self) -> None:
        """Cut the window here if a step is over."""
        if self._find_steps and self._hooks.optimizer_stepped:
            self._hooks.optimizer_stepped = False
            self._turn(self._step + 1)
        elif time.monotonic() - self._window_began > _MAX_WINDOW_SECONDS:
            self._turn(self._step)

    def _turn(self, step: int) -> None:
        self._run_cpu_s += time.process_time()
        self._flush()
        self._step = step
        self._writer.add("samples", self._sampler.drain())
        self._window = Window()
        self._window_began = time.monotonic()
        self._run_cpu_s -= time.process_time()

    def _flush(self) -> None:
        if self._window is None:
            return
        began = time.process_time()
        window, self._window = self._window, None
        raw = window.stop(self._pages.turn_page())
        parts = self._gpu.join(raw) if self._gpu is not None else {}
        preexisting, self._preexisting = self._preexisting, []
        self._write(raw, parts, preexisting)
        self._conversion_cpu_s += time.process_time() - began

    def _count_existing(self) -> list[Label]:
        """Return every tensor that Python knows, since torch tells nothing of what was made before; their ends are watched."""
        labels = []
        for tensor in gc.get_objects():
            if issubclass(type(tensor), torch.Tensor):
                labels += self._notebook.label(tensor, Role.NONE)
                self._hooks.watch(tensor)
        return labels

    def _final_metadata(self, error: BaseException | None) -> Metadata:
        warnings = [*self._metadata.warnings, *self._sampler.warnings]
        facts = dict(self._metadata.facts) | {"sampler": self._sampler.facts()}
        if self._gpu is not None:
            warnings += self._gpu.warnings
            facts |= self._gpu.facts()
        if self._converter.num_disagreements:
            warnings.append(f"Torch's own total differed from the sum of its events at {self._converter.num_disagreements} events.")
        if error is not None:
            facts |= {"error": f"{type(error).__name__}: {str(error)[:2000]}", "out_of_memory": is_out_of_memory(error)}
            what = "ran out of memory" if facts["out_of_memory"] else f"ended with {type(error).__name__}"
            reason = (str(error).splitlines() or [""])[0][:300]
            warnings.append(f"The program {what} in step {self._step}, with {self.allocated_bytes:,} B of tensors alive: {reason}")
        overhead = {
            "run_cpu_seconds": self._run_cpu_s,
            "conversion_cpu_seconds": self._conversion_cpu_s,
            "sampler_cpu_seconds": self._sampler.cpu_seconds,
        }
        return replace(self._metadata, warnings=warnings, facts=facts, overhead=overhead)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch failed to get memory, on a GPU or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@contextmanager
def record(
    path: Path | str,
    model: torch.nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    title: str | None = None,
    saved_tensors: bool = True,
) -> Iterator[Recorder]:
    """Record the memory of any PyTorch code in the block.

    Args:
        path: the recording's file; under torchrun each rank writes its own, ``NAME.rank0.headroom`` and so on.
        model: names modules and parameters from the start; without it, they are learned at its first forward.
        optimizer: names its state from the start; without it, from its first step.
        title: one line that lists show.
        saved_tensors: watch what autograd saves through its saved-tensor hooks. Switch it off for programs that use ``torch.func.grad`` or
            its kin, which refuse such hooks: activations are then told by when they are freed alone.

    Yields:
        The recorder: ``r.step()`` at the end of a step, ``r.phase("forward")``, ``r.region("name")``, ``r.scalar("loss", value)``; all are
        optional.

    Raises:
        SpecError: ``model`` or ``optimizer`` is something else.
        CaptureUnavailable: another profiler is running.
        StorageError: the file cannot be written.
    """
    check_kinds(model, optimizer)
    recorder = Recorder(path, title=title, saved_tensors=saved_tensors)
    recorder.start(model, optimizer)
    try:
        yield recorder
    except BaseException as error:
        recorder.stop(error)
        raise
    recorder.stop()


def _rank_and_path(path: Path) -> tuple[int, Path]:
    """Return this process's rank and its own file, as torchrun's environment tells."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return (rank, path.with_name(f"{path.stem}.rank{rank}{path.suffix}")) if world > 1 else (0, path)

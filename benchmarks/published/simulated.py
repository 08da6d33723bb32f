"""A published program and a GPU -> the bytes that its step would have held there, by simulating it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from profiler.devices import find_gpu
from profiler.simulate.session import Simulation


class Script(NamedTuple):
    """A published program after it has built what it needs."""

    step: Callable[[], object]
    """What it measures."""
    idle: Sequence[object] = ()
    """What it keeps beside that and does not use."""


Program = Callable[[torch.device], Script]
"""Builds on a device."""


def peak_allocated_bytes(gpu: str, program: Program, num_steps: int = 3, of: Callable[[Sequence[int]], float] = median) -> int:
    """Return what the steps' peaks of allocated memory come to, each counted from where the step begins.

    Args:
        gpu: a name of the GPU catalogue.
        program: what to run.
        num_steps: how often; gradients that are kept are there from the second on, so three have the median of any more.
        of: what the source reports of the steps: their median, or ``max`` for the peak of all.
    """
    peaks = []
    with _simulation(gpu) as device:
        script = program(device)
        for _ in range(num_steps):
            torch.cuda.reset_peak_memory_stats()
            script.step()
            peaks.append(torch.cuda.max_memory_allocated())
    return int(of(peaks))


def peak_reserved_bytes(gpu: str, program: Program, num_steps: int = 2) -> int:
    """Return what the allocator has taken from the driver after some steps, as `peak_allocated_bytes`."""
    with _simulation(gpu) as device:
        script = program(device)
        for _ in range(num_steps):
            script.step()
        return torch.cuda.max_memory_reserved()


@contextmanager
def _simulation(gpu: str) -> Iterator[torch.device]:
    """Let the block run on a simulated card; its recording is thrown away."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, Simulation(Path(folder) / "published.headroom", find_gpu(gpu)) as simulation:
        yield simulation.device
        simulation.abandon()

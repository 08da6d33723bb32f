"""Where a job can run: a device and the engine that goes with it. The only place that knows which engine serves which device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from profiler.devices import GPUS, find_gpu
from profiler.jobs.run import CAPTURE, SIMULATE
from profiler.spec import Workload

CPU = "cpu"
_CUDA = "cuda"
DEFAULT_STEPS = {CAPTURE: Workload().steps, SIMULATE: 1}
"""Steps that count, by engine: measured steps differ, simulated ones repeat each other."""


class Target(NamedTuple):
    """A device, and what runs a job for it."""

    engine: str
    device: str
    """As in `profiler.spec.Job`."""


def engine_of(device: str, wanted: str | None = None) -> str:
    """Return what runs a job on a device: this machine's are measured, those of the catalogue simulated, and the CPU can be either.

    Args:
        device: of a job; not checked.
        wanted: the engine to take where it can serve the device.
    """
    if device == CPU:
        return wanted if wanted in (CAPTURE, SIMULATE) else CAPTURE
    return CAPTURE if device.partition(":")[0] == _CUDA else SIMULATE


def target_of(device: str, wanted: str | None = None) -> Target:
    """Return the target of a job's device, under the name that `targets` gives it.

    Raises:
        SpecError: the device is a GPU that the catalogue does not have.
    """
    engine = engine_of(device, wanted)
    if device == _CUDA:
        device = f"{_CUDA}:0"
    return Target(engine, find_gpu(device).name if engine == SIMULATE and device != CPU else device)


def targets(gpu_indices: Iterable[int] = ()) -> list[Target]:
    """Return all targets: what this machine can measure, its CPU simulated, and every GPU of the catalogue.

    Args:
        gpu_indices: of this machine's GPUs.
    """
    measured = [CPU, *(f"{_CUDA}:{index}" for index in gpu_indices)]
    return [*(Target(CAPTURE, device) for device in measured), *(Target(SIMULATE, device) for device in (CPU, *GPUS))]

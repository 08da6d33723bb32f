"""GPU memory that a run takes outside of the allocator (CUDA context, loaded kernels, libraries) -> a band from ``outside.json``.

It follows from no configuration: it depends on the GPU, the driver, the CUDA version and the kernels that a run happens to load. So it is
only ever a span of measurements, each with its source. Communication libraries (NCCL) and other processes come on top.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from statistics import median_low

from profiler.devices.gpus import Gpu
from profiler.units import format_bytes

_ENOUGH = 2
"""One measurement is no band."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one process took outside of its allocator."""

    gpu: str
    """The catalogue's name, where the GPU is in it."""
    architecture: str
    bytes: int
    what: str
    """What was measured, and how."""
    eager_loading: bool
    """Whether all kernels were loaded at the start, as before CUDA 11.7 or with ``CUDA_MODULE_LOADING=EAGER``."""
    source: str


@dataclass(frozen=True, kw_only=True)
class OutsideBand:
    """What a run probably takes outside of the allocator."""

    low_bytes: int
    likely_bytes: int
    """The median: of the GPU itself where it was measured, else of its architecture, else of all in the band."""
    high_bytes: int
    architecture: str
    is_of_architecture: bool
    """False where too few runs on the architecture were measured: then it is the span of those on all."""
    measurements: tuple[Measurement, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the measurements are from."""
        return tuple(dict.fromkeys(measurement.source for measurement in self.measurements))

    @property
    def statement(self) -> str:
        """The band and what it stands on, as a sentence."""
        span = f"Outside of the allocator lie {format_bytes(self.low_bytes)} to {format_bytes(self.high_bytes)}"
        count = f"{len(self.measurements)} measurements"
        if self.is_of_architecture:
            return f"{span}, by {count} of {self.architecture.capitalize()} GPUs."
        return f"{span}: too few {self.architecture.capitalize()} GPUs were measured, so this spans {count} of all kinds."


def context_band(gpu: Gpu, *, eager_loading: bool = False) -> OutsideBand:
    """Return what a run on this GPU takes outside of the allocator, by the measurements of its architecture.

    Args:
        gpu: of the catalogue.
        eager_loading: whether CUDA may load all kernels at the start. Since torch 1.13 and CUDA 11.7 it loads them when they are first
            used, which more than halves the context (287,047,680 against 666,632,192 bytes in pytorch/pytorch#86509).
    """
    known = [measurement for measurement in MEASUREMENTS if eager_loading or not measurement.eager_loading]
    own = [measurement for measurement in known if measurement.architecture == gpu.architecture]
    of_this_gpu = [measurement for measurement in own if measurement.gpu == gpu.name]
    is_enough = len(own) >= _ENOUGH
    chosen = own if is_enough else known
    sizes = [measurement.bytes for measurement in chosen]
    return OutsideBand(
        low_bytes=min(sizes),
        likely_bytes=median_low(measurement.bytes for measurement in of_this_gpu or own or chosen),
        high_bytes=max(sizes),
        architecture=gpu.architecture,
        is_of_architecture=is_enough,
        measurements=tuple(chosen),
    )


MEASUREMENTS: tuple[Measurement, ...] = tuple(
    Measurement(**row) for row in json.loads(files(__package__).joinpath("outside.json").read_text(encoding="utf-8"))
)

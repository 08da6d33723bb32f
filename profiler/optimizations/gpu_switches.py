"""Switches of torch's GPU libraries: they change which kernel runs, and memory only where a kernel needs scratch of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from profiler.optimizations.base import Family, Optimization, Value
from profiler.optimizations.scope import Scope
from profiler.spec import Job

if TYPE_CHECKING:
    from torch import nn

    from profiler.workloads import Setup

GPU_SWITCHES = Family(
    name="gpu-switches",
    label="GPU switches",
    question="Which kernels may cuBLAS and cuDNN choose?",
    exclusive=False,
    off_label="torch's defaults",
)


class GpuSwitch(Optimization):
    """A switch that means nothing on a CPU."""

    family = GPU_SWITCHES
    applies_to = Scope(part="the kernels of cuBLAS and cuDNN", on_cpu=False)


class Tf32(GpuSwitch):
    """float32 products in TensorFloat-32."""

    name = "tf32"
    label = "TF32"
    aliases = ("allow-tf32",)
    formula = "bytes = those without it: cuBLAS's workspace has one size for a handle and a stream, whatever the kernel"
    source = "torch.backends.cuda.matmul.fp32_precision: https://docs.pytorch.org/docs/stable/notes/cuda.html#tf32-on-ampere"
    explanation = (
        "Multiplies float32 matrices on tensor cores with 10 bits of fraction: several times faster from Ampere on, and less exact. "
        "Tensors stay float32, so memory stays the same. torch makes cuBLAS's workspace once for each stream, 8.1 MiB, 32 MiB from Hopper "
        "on, with or without this. A simulation counts the faster products in its time; cuDNN's share is not modelled."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Switch it on around the steps."""
        import torch

        setup.allow_tf32 = True
        setup.contexts.append(partial(_switched, torch.backends.cuda.matmul, "fp32_precision", "tf32"))
        if setup.dtype is torch.float32:
            setup.notes.append("tf32 changes time, not memory: tensors stay float32, and cuBLAS's workspace has one size.")
        else:
            setup.notes.append(f"tf32 changes nothing here: products are in {str(setup.dtype).removeprefix('torch.')}, not in float32.")


class CudnnBenchmark(GpuSwitch):
    """cuDNN tries its algorithms."""

    name = "cudnn-benchmark"
    label = "cuDNN benchmark"
    formula = "while a new shape is tried, the largest workspace of all algorithms, for a moment; later that of the fastest"
    source = "torch.backends.cudnn.benchmark: https://docs.pytorch.org/docs/stable/backends.html#torch.backends.cudnn.benchmark"
    explanation = (
        "The first time that a convolution meets a shape, cuDNN runs every algorithm and keeps the fastest. Each is given its workspace "
        "from the caching allocator, of up to hundreds of MiB, so that the first step can peak higher and what is reserved stays larger; "
        "later steps use the workspace of the fastest, which need not be the smallest. Only convolutions: transformers and LSTMs have "
        "none, and nothing changes. Which workspaces a card's cuDNN asks for is not known without it, so a simulation leaves them out."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Switch it on around the steps, and say how many layers it is about."""
        import torch

        setup.contexts.append(partial(_switched, torch.backends.cudnn, "benchmark", True))
        setup.transforms.append(partial(_counted, setup.notes))


def _counted(notes: list[str], model: nn.Module) -> nn.Module:
    """Note how many convolutions a model has."""
    from torch.nn.modules.conv import _ConvNd

    num_convolutions = sum(isinstance(module, _ConvNd) for module in model.modules())
    if num_convolutions:
        notes.append(f"cudnn-benchmark: {num_convolutions:,} convolutions may use other workspaces; a simulation does not know them.")
    else:
        notes.append("cudnn-benchmark: 0 layers changed, since the model has no convolution.")
    return model


@contextmanager
def _switched(library: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(library, name)
    setattr(library, name, value)
    try:
        yield
    finally:
        setattr(library, name, before)


OPTIMIZATIONS: tuple[Optimization, ...] = (Tf32(), CudnnBenchmark())

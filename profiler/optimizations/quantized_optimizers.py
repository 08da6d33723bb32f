"""AdamW whose two states are kept in 8 or 4 bits a number: torchao's, and bitsandbytes' paged one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from profiler.optimizations.base import Optimization, Parameter, Value
from profiler.optimizations.optimizers import AnyOptimizer, learning_rate, weight_decay
from profiler.optimizations.scope import Scope
from profiler.recording import Provenance
from profiler.spec import Job

if TYPE_CHECKING:
    from profiler.workloads import Setup

_SCALE_BYTES = 4
MIN_QUANTIZED_NUMBERS = 4096
"""Parameters of fewer numbers keep states that are not quantized, in bitsandbytes and torchao alike."""


def blockwise_state_bytes(num_copies: int, bits: int, block: int) -> float:
    """Return bytes a parameter for quantized states: ``num_copies * (bits / 8 + 4 / block)``, a float32 scale a block."""
    return num_copies * (bits / 8 + _SCALE_BYTES / block)


class QuantizedAdamW(AnyOptimizer):
    """AdamW with quantized states."""

    bits: ClassVar[int]
    block: ClassVar[int]
    """Numbers that share a scale."""
    parameters: ClassVar[tuple[Parameter, ...]] = (learning_rate(1e-4), weight_decay(0.01))

    def state_bytes(self, num_parameters: int, itemsize: int, options: Mapping[str, Value]) -> int:
        """Return the codes and scales of two states; small parameters, which are not quantized, count as if they were."""
        return int(num_parameters * blockwise_state_bytes(2, self.bits, self.block))


class TorchaoAdamW(QuantizedAdamW):
    """AdamW of torchao.optim."""

    class_name: ClassVar[str]
    """In torchao.optim."""
    map_bytes: ClassVar[int]
    """Of the table of what codes stand for, which every state has."""

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Make the optimizer; on a CPU its step runs as written, lest every user need a C++ compiler and wait for it."""
        import torch
        from torchao import optim

        setup.make_optimizer = partial(getattr(optim, self.class_name), **options)
        if job.device == "cpu":
            from unittest.mock import patch

            setup.contexts.append(partial(patch.object, torch, "compile", _as_it_is))


class AdamW8bit(TorchaoAdamW):
    """8-bit states with a dynamic map."""

    name = "adamw-8bit"
    label = "AdamW, 8-bit"
    aliases = ("adamw8bit", "8bit-adamw", "adam-8bit")
    class_name = "AdamW8bit"
    map_bytes = 1024
    bits = 8
    block = 256
    formula = "optimizer state = 2 x (1 + 4/256) = 2.03 bytes a parameter, and two maps of 1 KiB a tensor; small tensors 2 numbers"
    source = "Dettmers et al. 2021, https://arxiv.org/abs/2110.02861; torchao 0.18 torchao.optim.AdamW8bit"
    explanation = (
        "AdamW whose mean and mean square are kept as 8-bit codes with a float32 scale for each 256 numbers: a quarter of AdamW's state in "
        "float32, half of that in bfloat16. Each step unpacks, updates and packs one parameter after another, with two float32 copies of "
        "it; a large embedding can make that the peak. On a CPU the step runs uncompiled here, with temporaries of many times one "
        "parameter. Parameters of fewer than 4,096 numbers, or not of whole blocks, keep plain states."
    )


class AdamW4bit(TorchaoAdamW):
    """4-bit states."""

    name = "adamw-4bit"
    label = "AdamW, 4-bit"
    aliases = ("adamw4bit", "4bit-adamw", "adam-4bit")
    class_name = "AdamW4bit"
    map_bytes = 64
    bits = 4
    block = 128
    formula = "optimizer state = 2 x (1/2 + 4/128) = 1.06 bytes a parameter, and two maps of 64 bytes a tensor; small tensors 2 numbers"
    source = "Li et al. 2023, https://arxiv.org/abs/2309.01507; torchao 0.18 torchao.optim.AdamW4bit"
    explanation = (
        "AdamW whose mean and mean square are kept as two 4-bit codes a byte, with a float32 scale for each 128 numbers: an eighth of "
        "AdamW's state in float32. More rounding than 8 bits: check the loss. What it saves over 8 bits is one byte a parameter, and a "
        "step makes temporaries of 24 bytes a number of one parameter: a large embedding can make that the peak. "
        "On a CPU the step runs uncompiled here, with more."
    )


class AdamWFp8(TorchaoAdamW):
    """8-bit floating-point states."""

    name = "adamw-fp8"
    label = "AdamW, FP8"
    aliases = ("adamwfp8", "fp8-adamw")
    class_name = "AdamWFp8"
    map_bytes = 0
    bits = 8
    block = 256
    formula = "optimizer state = 2 x (1 + 4/256) = 2.03 bytes a parameter; small tensors 2 numbers"
    source = "torchao 0.18 torchao.optim.AdamWFp8, float8_e4m3fn"
    explanation = (
        "AdamW whose mean and mean square are kept in float8 with a float32 scale for each 256 numbers. Takes as little as 8-bit codes and "
        "unpacks without a map, so a compiled step makes no copies; on a CPU it runs uncompiled here, with temporaries of a few times one "
        "parameter."
    )


class PagedAdamW8bit(QuantizedAdamW):
    """8-bit states in memory that GPU and host share."""

    name = "paged-adamw-8bit"
    label = "AdamW, 8-bit, paged"
    aliases = ("paged-adamw8bit",)
    applies_to = Scope(part="the optimizer's state and step", on_cpu=False)
    engines = frozenset((Provenance.SIMULATED,))
    parameters = ()
    bits = 8
    block = 256
    formula = "on the host: 2 bytes a parameter; on the GPU: its scales, 2 x 4/256 bytes a parameter, and the states of small tensors"
    source = "Dettmers et al. 2023, https://arxiv.org/abs/2305.14314, section 3; bitsandbytes 0.50 optim/optimizer.py"
    explanation = (
        "8-bit AdamW whose codes are in CUDA's managed memory, which the driver moves between GPU and host page by page. PyTorch's "
        "allocator never sees them; they are shown on the host, where they are once the GPU is full. While there is room they stay on the "
        "GPU: nvidia-smi counts them there, and nothing is lost. When pages move, the step waits for the bus."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Make what holds as much where it would be."""
        from profiler.optimizations import torch_optimizers

        setup.make_optimizer = torch_optimizers.PagedAdamW8bit

    def state_bytes(self, num_parameters: int, itemsize: int, options: Mapping[str, Value]) -> int:
        """Return the scales, which alone are always on the GPU."""
        return int(num_parameters * blockwise_state_bytes(2, 0, self.block))

    def refusal(self, job: Job) -> str | None:
        """Refuse machines: only a simulated GPU is told apart from the host here."""
        if job.device == "cpu" or job.device.startswith("cuda"):
            return f"{self.name} is simulated only, and the device is {job.device}. Simulate on a GPU such as rtx-4090, or use adamw-8bit."
        return super().refusal(job)


def _as_it_is(function: Any, **_: Any) -> Any:
    """Stand in for ``torch.compile``."""
    return function


OPTIMIZATIONS: tuple[Optimization, ...] = (AdamW8bit(), AdamW4bit(), AdamWFp8(), PagedAdamW8bit())

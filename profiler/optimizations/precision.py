"""Precision: in which number format the parameters, and with them gradients and optimizer state, are kept, and what is computed in less."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import Scope
from profiler.spec import Job

if TYPE_CHECKING:
    from profiler.workloads import Setup

PRECISION = Family(name="precision", label="Precision", question="In which number format is the model kept?", default="float32")

_SOURCE = "torch.set_default_dtype and torch.dtype: https://docs.pytorch.org/docs/stable/tensor_attributes.html"


class Precision(Optimization):
    """The whole model in one number format."""

    family = PRECISION
    applies_to = Scope(part="every number")
    itemsize: ClassVar[int]
    """Bytes of one number of the parameters."""
    master_itemsize: ClassVar[int] = 0
    """Bytes of one number of the optimizer's own copy of the parameters; 0 where it has none."""
    source = _SOURCE

    @property
    def product_itemsize(self) -> int:
        """Bytes of one number of what products make, such as logits."""
        return self.itemsize

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Make the parameters in this format."""
        import torch

        setup.dtype = getattr(torch, self.name)


class Float32(Precision):
    """32-bit floating point."""

    name = "float32"
    label = "float32"
    aliases = ("fp32", "float", "f32")
    itemsize = 4
    formula = "4 bytes a number: parameters, gradients, activations, optimizer state"
    explanation = (
        "Every number has 32 bits: 8 of exponent, 23 of fraction. The format in which torch makes parameters by default, and what the "
        "others are compared with."
    )


class BFloat16(Precision):
    """16-bit floating point with the exponent of float32."""

    name = "bfloat16"
    label = "bfloat16"
    aliases = ("bf16",)
    itemsize = 2
    formula = "2 bytes a number: parameters, gradients, activations, optimizer state"
    explanation = (
        "Every number has 16 bits with float32's range and 7 bits of fraction. Halves parameters, gradients, activations and optimizer "
        "state. The loss itself is computed in float32, so the logits exist in both formats for a while. Without float32 master weights, "
        "small updates are lost to rounding: the loss after many steps is worse than in float32."
    )


class Float16(Precision):
    """16-bit floating point with a small range."""

    name = "float16"
    label = "float16"
    aliases = ("fp16", "half", "f16")
    itemsize = 2
    formula = "2 bytes a number: parameters, gradients, activations, optimizer state"
    explanation = (
        "Every number has 16 bits with 10 bits of fraction and a range up to 65,504. Takes as little as bfloat16, but gradients below 6e-8 "
        "vanish and large values overflow, so training needs loss scaling; with none, expect a loss that is not a number. Good for "
        "inference."
    )


class Amp(Precision):
    """Automatic mixed precision: float32 parameters, forward in an autocast region."""

    name = "amp"
    label = "Mixed precision (autocast)"
    aliases = ("autocast", "mixed-precision")
    itemsize = 4
    parameters = (
        Parameter(
            name="dtype",
            kind=ParameterKind.CHOICE,
            default="bfloat16",
            choices=("bfloat16", "float16"),
            help="In which products are computed. Training in float16 scales the loss, so that small gradients do not vanish.",
        ),
    )
    formula = "4 bytes a parameter, gradient and optimizer number; 2 an activation of a product; 2 more a weight until its backward"
    source = "torch.amp: https://docs.pytorch.org/docs/stable/amp.html; Micikevicius et al. 2017, https://arxiv.org/abs/1710.03740"
    explanation = (
        "Parameters stay in float32, and torch.autocast computes products in half precision, softmax, norms and losses in float32. "
        "Activations shrink; parameters, gradients and optimizer state do not. Each weight is cast when it is used, and the cast is kept "
        "for backward, half of the parameters again: with a small batch that is more memory than float32, with long sequences and large "
        "batches less."
    )

    @property
    def product_itemsize(self) -> int:
        """Bytes of one number of what products make: half precision."""
        return 2

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Run forward in a region of the job's device; with float16, scale the loss."""
        import torch

        device = "cpu" if job.device == "cpu" else "cuda"
        setup.forward_contexts.append(partial(torch.autocast, device, dtype=getattr(torch, str(options["dtype"]))))
        if options["dtype"] == "float16":
            setup.make_scaler = partial(torch.amp.GradScaler, device)


_FORMATS: tuple[Precision, ...] = (Float32(), BFloat16(), Float16())
OPTIMIZATIONS: tuple[Optimization, ...] = (*_FORMATS, Amp())
ITEMSIZES = {item.name: item.itemsize for item in _FORMATS}
"""Bytes of one number by format, torch's default first."""

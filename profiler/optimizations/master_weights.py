"""Master weights: the model computes in bfloat16, and the optimizer updates float32 copies of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from profiler.optimizations.base import Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.precision import Precision
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from profiler.workloads import Setup

    MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]

_DROPPED, _KEPT = "dropped", "kept"


class MasterWeights(Precision):
    """bfloat16 parameters with float32 copies in the optimizer."""

    name = "master-weights"
    label = "bfloat16 with float32 master weights"
    aliases = ("fp32-master-weights", "bf16-master")
    itemsize = 2
    master_itemsize = 4
    parameters = (
        Parameter(
            name="gradients",
            kind=ParameterKind.CHOICE,
            default=_DROPPED,
            choices=(_DROPPED, _KEPT),
            help="What becomes of the bfloat16 gradients once they are copied to float32: dropped one by one, as Megatron-LM does, or kept "
            "until zero_grad, as DeepSpeed's unfused optimizer does, which drops the float32 ones after the step.",
        ),
    )
    formula = "2 bytes a parameter + 2 a gradient + 4 a master weight + 8 of Adam's state; in the step 4 more for the float32 gradient"
    source = (
        "Micikevicius et al. 2017, https://arxiv.org/abs/1710.03740, section 3.1; Megatron-LM Float16OptimizerWithFloat16Params: "
        "https://github.com/NVIDIA/Megatron-LM; DeepSpeed FP16_UnfusedOptimizer: https://github.com/deepspeedai/DeepSpeed"
    )
    explanation = (
        "Parameters, gradients and activations are bfloat16, and the optimizer keeps a float32 copy of every parameter, updates that, and "
        "rounds it back: small updates are not lost. Activations are half of float32's. What lasts is 16 bytes a parameter with Adam, as "
        "in float32 and twice what pure bfloat16 needs, and the step makes float32 gradients besides: where the peak lies there, it saves "
        "nothing against float32. In inference it is bfloat16."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Make the parameters in bfloat16 and give the optimizer float32 copies."""
        import torch

        setup.dtype = torch.bfloat16
        if job.workload.kind is not WorkloadKind.TRAIN:
            return
        assert setup.make_optimizer is not None, "the optimizer's family has a default and is applied before"
        setup.make_optimizer = partial(_made, make=setup.make_optimizer, keeps_gradients=options["gradients"] == _KEPT, notes=setup.notes)


def _made(parameters: Iterable[nn.Parameter], make: MakeOptimizer, *, keeps_gradients: bool, notes: list[str]) -> Optimizer:
    from profiler.optimizations.master_optimizer import MasterOptimizer

    optimizer = MasterOptimizer(parameters, make, keeps_gradients=keeps_gradients)
    if not optimizer.num_masters:
        notes.append("master-weights: 0 parameters have a copy, since all that are trained are float32 already.")
    return optimizer


OPTIMIZATIONS: tuple[Optimization, ...] = (MasterWeights(),)

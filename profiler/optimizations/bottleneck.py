"""Bottleneck adapters: small layers in series with those of the model, which is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from profiler.optimizations.adapters import FineTuning
from profiler.optimizations.base import Optimization, Parameter, ParameterKind, Value
from profiler.spec import Job

if TYPE_CHECKING:
    from torch import nn

    from profiler.workloads import Setup


class BottleneckAdapters(FineTuning):
    """Two small layers behind each attention and each feed-forward."""

    name = "bottleneck-adapters"
    label = "Bottleneck adapters"
    aliases = ("adapters", "houlsby")
    parameters = (
        Parameter(name="width", kind=ParameterKind.INTEGER, default=64, low=1, high=4096, help="Outputs of the first of the two layers."),
    )
    formula = "trained parameters = 2 x (2 x hidden size x width + hidden size + width) a layer, in the model's number format"
    source = "Houlsby et al. 2019, https://arxiv.org/abs/1902.00751, without training the norms"
    explanation = (
        "Freezes the model and trains two small linear layers behind each attention and each feed-forward. Gradients and optimizer state "
        "shrink to those of the adapters. Unlike LoRA's they run one after the model's own layers and cannot be merged into them, so each "
        "keeps activations of its own and takes time in inference too; with short steps of a small model it can need more than it saves."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Put bottlenecks into the built model."""
        width = int(options["width"])

        def transform(model: nn.Module) -> nn.Module:
            from profiler.optimizations.bottleneck_layers import add_bottlenecks

            return add_bottlenecks(model, width)

        setup.transforms.append(transform)


OPTIMIZATIONS: tuple[Optimization, ...] = (BottleneckAdapters(),)

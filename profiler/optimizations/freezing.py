"""Freezing: the first layers stay as they are, and training reaches back no further than it must."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from profiler.errors import SpecError
from profiler.optimizations.adapters import FineTuning
from profiler.optimizations.base import Optimization, Parameter, ParameterKind, Value
from profiler.spec import Job

if TYPE_CHECKING:
    from torch import nn

    from profiler.workloads import Setup


class Freeze(FineTuning):
    """Train the last layers and what comes after them."""

    name = "freeze"
    label = "Freeze first layers"
    aliases = ("freezing",)
    parameters = (
        Parameter(
            name="trainable_layers",
            kind=ParameterKind.INTEGER,
            default=1,
            low=0,
            high=2048,
            help="So many of the last layers are trained, with what comes after them; 0 trains the output alone.",
        ),
    )
    formula = (
        "gradients and optimizer state of the last layers, the last norm and the output layer; activations from the first trained layer on"
    )
    source = "Howard and Ruder 2018, https://arxiv.org/abs/1801.06146; requires_grad_(False)"
    explanation = (
        "Trains the last layers, the last norm and the output layer only. Gradients and optimizer state of the rest are gone, and so are "
        "its activations: backward ends at the first layer that is trained. Where the output layer shares its weight with the embeddings "
        "backward does not end there, and activations stay. What can be learned is less than with adapters in all layers."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Freeze the built model but for its end."""
        num_layers = int(options["trainable_layers"])
        setup.transforms.append(lambda model: _frozen(model, num_layers, setup.notes))


def _frozen(model: nn.Module, num_trained: int, notes: list[str]) -> nn.Module:
    path, layers = _last_layers(model)
    names = [name for name, _ in model.named_parameters()]
    last = max(index for index, name in enumerate(names) if name.startswith(f"{path}."))
    after = set(names[last + 1 :])
    output = model.get_output_embeddings()  # type: ignore[operator]
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in after)
    for layer in layers[max(0, len(layers) - num_trained) :]:
        layer.requires_grad_(True)
    output.requires_grad_(True)
    if num_trained >= len(layers):
        notes.append(f"0 layers frozen: the model has {len(layers)}, and all are trained. Only what comes before them is frozen.")
    if output.weight is model.get_input_embeddings().weight:  # type: ignore[operator]
        notes.append("The output layer shares its weight with the embeddings, so backward still runs through every layer.")
    return model


def _last_layers(model: nn.Module) -> tuple[str, list[nn.Module]]:
    """Return the path and the members of the stack of layers before the output: of an encoder-decoder model, the decoder's."""
    from torch.nn import ModuleList
    from transformers.modeling_layers import GradientCheckpointingLayer

    stacks = [
        (path, list(module))
        for path, module in model.named_modules()
        if isinstance(module, ModuleList) and len(module) and isinstance(module[0], GradientCheckpointingLayer)
    ]
    if not stacks:
        raise SpecError(f"{type(model).__name__} has no stack of layers to freeze. Switch freeze off.")
    return stacks[-1]


OPTIMIZATIONS: tuple[Optimization, ...] = (Freeze(),)

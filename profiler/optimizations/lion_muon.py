"""Optimizers that keep one number a parameter where Adam keeps two: Lion and Muon."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from profiler.optimizations.base import Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.optimizers import AnyOptimizer, learning_rate, weight_decay
from profiler.optimizations.scope import Conflict
from profiler.spec import Job

if TYPE_CHECKING:
    from torch import nn

    from profiler.workloads import Setup


class Lion(AnyOptimizer):
    """Lion."""

    name = "lion"
    label = "Lion"
    parameters = (learning_rate(3e-5), weight_decay(0.1))
    formula = "optimizer state = 1 number a parameter in its dtype: 4 bytes in float32, 2 in bfloat16"
    source = "Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2; a step of four operators a parameter"
    explanation = (
        "Moves every parameter by the same amount, in the direction of the sign of a mix of momentum and gradient. Keeps the momentum "
        "alone, half of Adam's state, and needs a learning rate about ten times smaller. With an optimizer's state that is already small, "
        "as of adapters, it saves next to nothing."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Make the optimizer."""
        from profiler.optimizations import torch_optimizers

        setup.make_optimizer = partial(torch_optimizers.Lion, lr=float(options["lr"]), weight_decay=float(options["weight_decay"]))

    def state_bytes(self, num_parameters: int, itemsize: int, options: Mapping[str, Value]) -> int:
        """Return one number a parameter."""
        return num_parameters * itemsize


_ROUNDS = Parameter(
    name="rounds",
    kind=ParameterKind.INTEGER,
    default=5,
    low=1,
    high=99,
    help="How often an update is made more orthogonal; costs compute, memory does not depend on it.",
)


class Muon(AnyOptimizer):
    """Muon for hidden matrices, AdamW for embeddings, the output layer and vectors."""

    name = "muon"
    label = "Muon"
    parameters = (learning_rate(1e-4), weight_decay(0.1), _ROUNDS)
    conflicts = (
        Conflict(
            others=("master-weights",),
            why="muon looks for embeddings among the model's parameters, and master-weights trains copies of them",
        ),
    )
    formula = "optimizer state = 1 number a parameter of a hidden matrix, 2 of embeddings, the output layer and vectors, in its dtype"
    source = "Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; torch.optim.Muon, adjust_lr_fn=match_rms_adamw"
    explanation = (
        "Keeps one momentum a hidden matrix and makes each update close to orthogonal by rounds of matrix products in bfloat16: half "
        "of Adam's state, for more compute and temporaries of a few copies of one matrix. Embeddings, the output layer and vectors are "
        "trained by AdamW, with two numbers a parameter, so small models with large vocabularies save less than half."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Learn which matrices are hidden once the model is there; then make both optimizers."""
        from profiler.optimizations.torch_optimizers import muon_and_adamw

        outer: set[int] = set()

        def look_at(model: nn.Module) -> nn.Module:
            outer.clear()
            outer.update(_embeddings_and_output(model))
            return model

        setup.transforms.append(look_at)
        shared = {"lr": float(options["lr"]), "weight_decay": float(options["weight_decay"])}
        setup.make_optimizer = partial(
            muon_and_adamw,
            is_hidden=lambda parameter: id(parameter) not in outer,
            muon=shared | {"adjust_lr_fn": "match_rms_adamw", "ns_steps": int(options["rounds"])},
            adamw=shared | {"foreach": job.device != "cpu"},
        )

    def state_bytes(self, num_parameters: int, itemsize: int, options: Mapping[str, Value]) -> int:
        """Return one number a parameter: as if all were hidden matrices, so a little too few."""
        return num_parameters * itemsize


def _embeddings_and_output(model: nn.Module) -> set[int]:
    """Return the ids of the parameters of embeddings and of the layer that makes the logits."""
    from torch import nn

    tell = getattr(model, "get_output_embeddings", None)
    layers = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    layers += [layer] if callable(tell) and (layer := tell()) is not None else []
    return {id(parameter) for layer in layers for parameter in layer.parameters()}


OPTIMIZATIONS: tuple[Optimization, ...] = (Lion(), Muon())

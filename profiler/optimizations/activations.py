"""Activations: which of the tensors that backward needs are kept, and which are made again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from profiler.errors import SpecError
from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import TRANSFORMERS, Conflict, Scope
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from torch import nn

    from profiler.workloads import Setup

ACTIVATIONS = Family(
    name="activations",
    label="Activations",
    question="Which activations are kept for backward?",
    workloads=frozenset((WorkloadKind.TRAIN,)),
)


class Checkpointing(Optimization):
    """Activation checkpointing by layers."""

    name = "checkpointing"
    family = ACTIVATIONS
    label = "Checkpointing"
    aliases: ClassVar[tuple[str, ...]] = ("activation-checkpointing", "gradient-checkpointing", "ac")
    applies_to = Scope(part="the activations of layers", heads=TRANSFORMERS)
    parameters = (
        Parameter(
            name="every",
            kind=ParameterKind.INTEGER,
            default=1,
            low=1,
            high=2048,
            help="1 checkpoints every layer, 2 every second one, and so on.",
        ),
    )
    formula = "activations = one layer's input a checkpointed layer, and all of one layer while it is made again"
    source = "Chen et al. 2016, https://arxiv.org/abs/1604.06174; torch.utils.checkpoint, use_reentrant=False"
    explanation = (
        "Keeps only the input of each layer and runs the layer's forward again when backward needs the rest: activations shrink to about "
        "one layer's, for about a third more compute. Once the peak is elsewhere, such as at the logits or in the optimizer's step, more "
        "of it saves nothing."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Switch checkpointing on in the built model."""
        every = int(options["every"])
        setup.transforms.append(lambda model: _checkpointed(model, every))


class SelectiveCheckpointing(Checkpointing):
    """Activation checkpointing of every layer, but for what some operators made."""

    name = "selective-checkpointing"
    label = "Selective checkpointing"
    aliases = ("selective-activation-checkpointing", "sac")
    conflicts = (
        Conflict(
            others=("eager", "math"),
            why="selective-checkpointing keeps the results of fused attention, and the other has none",
            unless=("selective-checkpointing:save=matmuls", "selective-checkpointing:save=every-second-matmul"),
        ),
    )
    parameters = (
        Parameter(
            name="save",
            kind=ParameterKind.CHOICE,
            default="attention",
            choices=("attention", "every-second-matmul", "matmuls"),
            help="What is kept of each layer: the results of fused attention alone, those and the result of every second linear layer, or "
            "those and the results of all linear layers.",
        ),
    )
    formula = "activations = each layer's input and the results of the operators that are kept, and all of one layer while it is made again"
    source = (
        "Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, section 5; torch.utils.checkpoint's "
        "create_selective_checkpoint_contexts; torchtitan's operator policy keeps every second matmul"
    )
    explanation = (
        "Keeps the input of each layer and the results of the operators that are dear to compute again, and runs only the cheap ones "
        "twice. Saves less than checkpointing and costs less time. A result that no later operator needs for its backward is kept all the "
        "same: keeping all matmuls can take nearly as much as keeping everything."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Switch checkpointing on in the built model, with this policy."""
        save = str(options["save"])

        def checkpointed(model: nn.Module) -> nn.Module:
            from profiler.optimizations.operator_policy import contexts_for

            return _checkpointed(model, 1, context_fn=contexts_for(save, kept))

        def kept() -> None:
            if _KEPT_NOTHING in setup.notes:
                setup.notes.remove(_KEPT_NOTHING)

        setup.notes.append(_KEPT_NOTHING)  # until something is
        setup.transforms.append(checkpointed)


_KEPT_NOTHING = "0 results kept: attention ran without a fused kernel here, so this is checkpointing of every layer. Choose save=matmuls."


def checkpointed_every(job: Job) -> int | None:
    """Return which layers a job checkpoints, every one, every second and so on; None where it checkpoints none."""
    toggle = next((toggle for toggle in job.toggles if toggle.name == Checkpointing.name), None)
    return None if toggle is None else int(Checkpointing().read_options(dict(toggle.options))["every"])


def _checkpointed(model: nn.Module, every: int, **options: Any) -> nn.Module:
    enable: Any = getattr(model, "activation_checkpointing_enable", None)
    try:
        enable({"use_reentrant": False, **options}, every_n_layers=every)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{type(model).__name__} cannot be checkpointed: {error} Switch checkpointing off.") from error
    return model


OPTIMIZATIONS: tuple[Optimization, ...] = (Checkpointing(), SelectiveCheckpointing())

"""When the parameters are updated: in a step of its own after backward, or each within backward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from profiler.optimizations.base import Family, Optimization, Value
from profiler.optimizations.scope import Conflict, Scope
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from profiler.workloads import Setup

UPDATE = Family(
    name="update",
    label="Time of update",
    question="When are the parameters updated?",
    off_label="After backward",
    workloads=frozenset((WorkloadKind.TRAIN,)),
)


class OptimizerInBackward(Optimization):
    """The optimizer's step within backward, parameter by parameter."""

    name = "optimizer-in-backward"
    family = UPDATE
    label = "Optimizer in backward"
    aliases = ("optimizer-in-bwd", "fused-backward")
    applies_to = Scope(part="gradients and the optimizer's step")
    conflicts = (
        Conflict(
            others=("amp",),
            why="optimizer-in-backward cannot wait for the scaler that float16 needs",
            unless=("amp:dtype=bfloat16",),
        ),
        Conflict(
            others=("master-weights",),
            why="master-weights copies all gradients before the step, and optimizer-in-backward leaves none",
        ),
        Conflict(
            others=("offload-optimizer",),
            why="optimizer-in-backward updates on the GPU during backward, and offload-optimizer on the host after it",
        ),
    )
    formula = "gradients = those of one parameter at a time, not of all; optimizer temporaries = those of one parameter"
    source = "https://docs.pytorch.org/tutorials/intermediate/optimizer_step_in_backward_tutorial.html"
    explanation = (
        "Updates each parameter as soon as its gradient is whole and frees the gradient at once, so that all gradients never exist "
        "together. Saves nothing where the peak is at the end of forward, when there are no gradients yet. Gradients cannot be "
        "accumulated over micro-batches, clipped by their norm or checked for overflow, as all that needs them together."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Make an optimizer of its own for each parameter, and let backward call it."""
        from profiler.optimizations.torch_optimizers import UpdatesInBackward

        assert setup.make_optimizer is not None, "the optimizer's family has a default and is applied before"
        updates = UpdatesInBackward(setup.make_optimizer)
        setup.make_optimizer = updates.make_optimizer
        setup.contexts.append(updates.in_place)


def updates_in_backward(job: Job) -> bool:
    """Tell whether each parameter is updated within backward, so that gradients never exist together."""
    return any(toggle.name == OptimizerInBackward.name for toggle in job.toggles)


OPTIMIZATIONS: tuple[Optimization, ...] = (OptimizerInBackward(),)

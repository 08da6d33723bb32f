"""Offload: what waits in the host's memory until the GPU needs it, and is copied back and forth for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import TRANSFORMERS, Conflict, Scope
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from profiler.workloads import Setup

OFFLOAD = Family(
    name="offload",
    label="Offload to the host",
    question="What waits in the host's memory?",
    exclusive=False,
    off_label="Nothing",
    workloads=frozenset((WorkloadKind.TRAIN,)),
)
_ON_A_CPU = "On a CPU both places are the same memory: the copies are made all the same, so it costs memory and saves none."
_OPTIMIZER, _PARAMETERS = "offload-optimizer", "offload-parameters"


class OffloadActivations(Optimization):
    """Tensors saved for backward wait on the host."""

    name = "offload-activations"
    family = OFFLOAD
    label = "Activations"
    aliases = ("activation-offloading", "save-on-cpu")
    applies_to = Scope(part="what autograd saves for backward, but parameters")
    parameters = (
        Parameter(
            name="min_bytes",
            kind=ParameterKind.INTEGER,
            default=1024,
            low=0,
            high=2**40,
            help="Smaller tensors stay where they are: copying them costs more than they take.",
        ),
    )
    formula = "GPU: activations of one operator at a time; pinned host: all saved tensors, each rounded up to a power of two"
    source = (
        "torch.autograd.graph.save_on_cpu: https://docs.pytorch.org/docs/stable/autograd.html; without parameters, as in TRL's and "
        "torchtune's activation offloading"
    )
    explanation = (
        "Copies each tensor that autograd saves to pinned host memory and back when backward needs it. The GPU then holds one operator's "
        "activations at a time; what it no longer holds must fit on the host, where a tensor that three operators saved lies three times, "
        f"and every step moves all of it twice. With checkpointing only the layers' inputs are left to move. {_ON_A_CPU}"
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Save to the host in every forward."""
        from profiler.optimizations.host_memory import OffloadedActivations

        min_bytes = int(options["min_bytes"])
        nothing = (
            f"0 tensors moved: none that autograd saved has {min_bytes:,} bytes or more and is no parameter. Choose a smaller min_bytes."
        )

        def moved() -> None:
            if nothing in setup.notes:
                setup.notes.remove(nothing)

        setup.notes.append(nothing)  # until one is
        setup.forward_contexts.append(partial(OffloadedActivations, min_bytes, pinned=_is_pinned(job), moved=moved))


class OffloadOptimizer(Optimization):
    """The optimizer's step on the host, with its state."""

    name = _OPTIMIZER
    family = OFFLOAD
    label = "Optimizer"
    aliases = ("cpu-offload-optimizer", "zero-offload")
    applies_to = Scope(part="optimizer state and gradients")
    conflicts = (
        Conflict(
            others=("paged-adamw-8bit",),
            why="paged-adamw-8bit lets the driver move optimizer state to the host, and offload-optimizer keeps it there",
        ),
        Conflict(
            others=("amp",),
            why="offload-optimizer takes gradients away before the scaler that float16 needs has seen them",
            unless=("amp:dtype=bfloat16",),
        ),
    )
    parameters = (
        Parameter(
            name="gradients",
            kind=ParameterKind.BOOLEAN,
            default=True,
            help="Move each gradient to the host as soon as it is there; else the GPU keeps all of them until the step.",
        ),
    )
    formula = "GPU: parameters, and gradients if they stay; host: optimizer state, a copy of the parameters, their gradients"
    source = (
        "Ren et al. 2021, ZeRO-Offload, https://arxiv.org/abs/2101.06840; torchao CPUOffloadOptimizer: "
        "https://github.com/pytorch/ao/tree/main/torchao/optim"
    )
    explanation = (
        "Keeps the optimizer's state on the host, beside copies of the parameters and of their gradients in pinned memory, lets the host's "
        "processor do the step, and copies the parameters back. The GPU gives up optimizer state and, unless they stay, gradients; the "
        f"step takes as long as the host needs for it. {_ON_A_CPU}"
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Make the optimizer of copies on the host."""
        from profiler.optimizations.host_memory import HostOptimizers

        assert setup.make_optimizer is not None, "the optimizer's family has a default and is applied before"
        made = HostOptimizers(setup.make_optimizer, pinned=_is_pinned(job))
        setup.make_optimizer = made.make_optimizer
        if options["gradients"]:
            setup.contexts.append(made.taking_gradients)


class OffloadParameters(Optimization):
    """Parameters wait on the host; each module brings its own when it runs."""

    name = _PARAMETERS
    family = OFFLOAD
    label = "Parameters"
    aliases = ("cpu-offload-parameters", "zero-infinity")
    applies_to = Scope(part="the parameters that a module itself uses", heads=TRANSFORMERS)
    conflicts = (
        Conflict(
            others=("offload-optimizer",),
            why="offload-parameters keeps gradients and optimizer state on the host, too, so offload-optimizer has nothing left to move",
        ),
        Conflict(
            others=("adalora", "ia3"),
            why="what the other trains belongs to no module that runs, so offload-parameters would leave it on the host",
            on_cpu=False,
        ),
        Conflict(
            others=("amp",),
            why="amp keeps a cast of every weight on the GPU until its backward, so offload-parameters would save little",
            instead="Use bfloat16 as the precision",
        ),
    )
    formula = "GPU: the parameters of one module at a time; host: all parameters, their gradients and optimizer state"
    source = (
        "Rajbhandari et al. 2021, ZeRO-Infinity, https://arxiv.org/abs/2104.07857; module by module as accelerate's cpu_offload: "
        "https://huggingface.co/docs/accelerate/package_reference/big_modeling"
    )
    explanation = (
        "Keeps the parameters in pinned host memory. Each module copies its own to the GPU when it runs, in forward and again in backward, "
        "and drops them after; gradients go to the host, where the optimizer updates. The GPU holds the largest module's parameters "
        "instead of all, and every step moves all parameters at least twice: on one GPU the bus decides how long a step takes. Copies are "
        f"not made ahead of their use here, which real systems do at the price of another module's parameters. {_ON_A_CPU}"
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Leave the parameters on the host, and let modules bring them."""
        from profiler.optimizations.host_parameters import HostParameters

        assert setup.load is None, "what brings weights to the device in another format is declared as a conflict"
        parameters = HostParameters(lambda tensors, role: setup.tell(tensors, role), pinned=_is_pinned(job))
        setup.load = parameters.load
        setup.transforms.append(parameters.bring)


def steps_on_host(job: Job) -> bool:
    """Tell whether the optimizer of a job runs on the host, whatever the device."""
    return job.device == "cpu" or any(toggle.name in (_OPTIMIZER, _PARAMETERS) for toggle in job.toggles)


def _is_pinned(job: Job) -> bool:
    """Tell whether host memory is pinned: beside a GPU. A CPU-only torch cannot pin."""
    return job.device != "cpu"


OPTIMIZATIONS: tuple[Optimization, ...] = (OffloadActivations(), OffloadOptimizer(), OffloadParameters())

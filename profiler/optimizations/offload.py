"""Offload: what waits in the host's memory until the GPU needs it, and is copied back and forth for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from profiler.errors import SpecError
from profiler.models.catalogue import facts_of
from profiler.models.config import Head
from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
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

    def refusal(self, job: Job) -> str | None:
        """Refuse what cannot be where the gradients are on the host, and what has no kernel there."""
        toggles = {toggle.name: dict(toggle.options) for toggle in job.toggles}
        if "optimizer-in-backward" in toggles:
            return (
                f"optimizer-in-backward updates on the GPU during backward, and {self.name} on the host after it. Switch one of them off."
            )
        paged = next((name for name in toggles if name.startswith("paged")), None)
        if paged:
            return f"{paged} lets the driver move optimizer state to the host, and {self.name} keeps it there. Switch one of them off."
        return _refuse_scaler(self.name, toggles) or super().refusal(job)


class OffloadParameters(Optimization):
    """Parameters wait on the host; each module brings its own when it runs."""

    name = _PARAMETERS
    family = OFFLOAD
    label = "Parameters"
    aliases = ("cpu-offload-parameters", "zero-infinity")
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

        if setup.load is not None:
            raise SpecError(f"{self.name} leaves weights on the host as they are, and another toggle changes their format. Switch one off.")
        parameters = HostParameters(lambda tensors, role: setup.tell(tensors, role), pinned=_is_pinned(job))
        setup.load = parameters.load
        setup.transforms.append(parameters.bring)

    def refusal(self, job: Job) -> str | None:
        """Refuse what uses weights outside of their module, or keeps copies of them on the device."""
        toggles = {toggle.name: dict(toggle.options) for toggle in job.toggles}
        if facts_of(job.model).head is Head.RECURRENT:
            return f"{self.name} works on modules that use their own parameters, and recurrent layers keep theirs in a list. Switch it off."
        if _OPTIMIZER in toggles:
            return f"{self.name} already keeps gradients and optimizer state on the host. Switch {_OPTIMIZER} off."
        for name in ("chunked-loss", "fused-loss"):
            if name in toggles:
                return f"{name} uses the output layer's weight outside of the layer, where {self.name} does not bring it. Switch one off."
        if "amp" in toggles:
            return (
                f"amp keeps a cast of every weight on the GPU until its backward, so {self.name} would save little. Use bfloat16 instead."
            )
        return super().refusal(job)


def steps_on_host(job: Job) -> bool:
    """Tell whether the optimizer of a job runs on the host, whatever the device."""
    return job.device == "cpu" or any(toggle.name in (_OPTIMIZER, _PARAMETERS) for toggle in job.toggles)


def _is_pinned(job: Job) -> bool:
    """Tell whether host memory is pinned: beside a GPU. A CPU-only torch cannot pin."""
    return job.device != "cpu"


def _refuse_scaler(name: str, toggles: Mapping[str, Mapping[str, str]]) -> str | None:
    if toggles.get("amp", {}).get("dtype") != "float16":
        return None
    return f"{name} takes gradients away before the scaler that amp:dtype=float16 needs has seen them. Use amp:dtype=bfloat16."


OPTIMIZATIONS: tuple[Optimization, ...] = (OffloadActivations(), OffloadOptimizer(), OffloadParameters())

"""Optimizers: what is kept for each parameter between steps, and what the step itself makes for a moment."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.offload import steps_on_host
from profiler.optimizations.scope import Scope
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from profiler.workloads import Setup

OPTIMIZER = Family(
    name="optimizer",
    label="Optimizer",
    question="How are the parameters updated?",
    default="adamw",
    workloads=frozenset((WorkloadKind.TRAIN,)),
)

_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.optim."


def number(name: str, default: float, high: float, text: str) -> Parameter:
    """Return an option from 0 to ``high``."""
    return Parameter(name=name, kind=ParameterKind.NUMBER, default=default, low=0.0, high=high, help=text)


def learning_rate(default: float) -> Parameter:
    """Return the option of this name."""
    return number("lr", default, 100.0, "Learning rate; memory does not depend on it.")


def weight_decay(default: float) -> Parameter:
    """Return the option of this name, for decay that acts on the parameters and not on their gradients."""
    return number("weight_decay", default, 10.0, "Share of each parameter that a step takes away, times the learning rate.")


def _implementation(*choices: str) -> Parameter:
    return Parameter(
        name="implementation",
        kind=ParameterKind.CHOICE,
        default="auto",
        choices=("auto", *choices),
        help="for-loop updates one parameter after another; foreach updates lists of them at once and makes temporaries as large as the "
        "parameters; fused does all in one kernel. auto is what torch chooses: for-loop on a CPU, foreach on a GPU.",
    )


class AnyOptimizer(Optimization):
    """An optimizer, of whichever library."""

    family = OPTIMIZER
    applies_to: ClassVar[Scope] = Scope(part="the optimizer's state and step")

    @abstractmethod
    def state_bytes(self, num_parameters: int, itemsize: int, options: Mapping[str, Value]) -> int:
        """Return the bytes kept between steps for trained parameters of ``itemsize`` bytes a number, by closed formula.

        Step counters (4 bytes a tensor) are left out.
        """


class TorchOptimizer(AnyOptimizer):
    """An optimizer of torch.optim."""

    class_name: ClassVar[str]
    """In torch.optim."""
    state_copies: ClassVar[int]
    """Numbers kept for each parameter with default options; 0 where they are far fewer than the parameters."""

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Make the optimizer from torch.optim."""
        from torch import optim

        setup.make_optimizer = partial(getattr(optim, self.class_name), **self.arguments(options, job))

    def arguments(self, options: Mapping[str, Value], job: Job) -> dict[str, Any]:
        """Return the keyword arguments of the torch class; the implementation is named, since torch's own choice differs by device."""
        arguments: dict[str, Any] = {name: value for name, value in options.items() if name != "implementation"}
        implementation = options.get("implementation")
        if implementation == "auto":
            implementation = "for-loop" if steps_on_host(job) else "foreach"
        if implementation == "fused":
            arguments["fused"] = True
        elif implementation is not None:
            arguments["foreach"] = implementation == "foreach"
        return arguments

    def num_state_copies(self, options: Mapping[str, Value]) -> int:
        """Return how many numbers are kept for each parameter between steps, at least; their dtype is the parameter's."""
        return self.state_copies

    def state_bytes(self, num_parameters: int, itemsize: int, options: Mapping[str, Value]) -> int:
        """Return the copies of the parameters, at least."""
        return num_parameters * itemsize * self.num_state_copies(options)


class Sgd(TorchOptimizer):
    """Stochastic gradient descent."""

    name = "sgd"
    label = "SGD"
    class_name = "SGD"
    state_copies = 0
    parameters = (
        learning_rate(0.01),
        number("momentum", 0.0, 1.0, "Share of the last update that is kept; above 0 it is stored for every parameter."),
        _implementation("for-loop", "foreach", "fused"),
    )
    formula = "optimizer state = 0; with momentum, one number a parameter in its dtype"
    source = f"{_DOCS}SGD.html"
    explanation = (
        "Subtracts the gradient times the learning rate. Keeps nothing between steps, or one number a parameter with momentum: the least "
        "that training can keep. Language models train worse with it than with Adam."
    )

    def num_state_copies(self, options: Mapping[str, Value]) -> int:
        """Return 1 with momentum, else 0."""
        return 1 if options["momentum"] else 0


class Adam(TorchOptimizer):
    """Adam."""

    name = "adam"
    label = "Adam"
    class_name = "Adam"
    state_copies = 2
    parameters = (
        learning_rate(1e-4),
        number("weight_decay", 0.0, 10.0, "Added to the gradient."),
        _implementation("for-loop", "foreach", "fused"),
    )
    formula = "optimizer state = 2 numbers a parameter in its dtype: 8 bytes in float32, 4 in bfloat16"
    source = f"Kingma and Ba 2014, https://arxiv.org/abs/1412.6980; {_DOCS}Adam.html"
    explanation = (
        "Keeps a running mean of every gradient and of its square, so optimizer state is twice the parameters. Both have the parameter's "
        "dtype. They appear in the first step and stay."
    )


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    name = "adamw"
    label = "AdamW"
    class_name = "AdamW"
    parameters = (learning_rate(1e-4), weight_decay(0.01), _implementation("for-loop", "foreach", "fused"))
    source = f"Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101; {_DOCS}AdamW.html"
    explanation = (
        "Adam whose weight decay acts on the parameters and not on the gradients: what most language models are trained with. Keeps two "
        "numbers a parameter, in the parameter's dtype. The foreach implementation makes temporaries as large as the parameters in its "
        "step, which can be the peak; for-loop needs those of one parameter at a time."
    )


class RmsProp(TorchOptimizer):
    """RMSprop."""

    name = "rmsprop"
    label = "RMSprop"
    class_name = "RMSprop"
    state_copies = 1
    aliases = ("rms-prop",)
    parameters = (
        learning_rate(1e-3),
        number("momentum", 0.0, 1.0, "Share of the last update that is kept; above 0 it is stored for every parameter."),
        Parameter(
            name="centered",
            kind=ParameterKind.BOOLEAN,
            default=False,
            help="Normalize by the variance and not by the mean square, which needs the mean too.",
        ),
        _implementation("for-loop", "foreach"),
    )
    formula = "optimizer state = 1 number a parameter in its dtype; one more with momentum, one more if centered"
    source = f"{_DOCS}RMSprop.html"
    explanation = "Divides each gradient by the root of a running mean of its square. Keeps one number a parameter: half of Adam's state."

    def num_state_copies(self, options: Mapping[str, Value]) -> int:
        """Return 1 to 3: the mean square, the momentum, the mean."""
        return 1 + bool(options["momentum"]) + bool(options["centered"])


class Adafactor(TorchOptimizer):
    """Adafactor."""

    name = "adafactor"
    label = "Adafactor"
    class_name = "Adafactor"
    state_copies = 0
    parameters = (learning_rate(1e-2), _implementation("for-loop", "foreach"))
    formula = "optimizer state = rows + columns numbers for a matrix, one number a parameter for a vector, in its dtype"
    source = f"Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235; {_DOCS}Adafactor.html"
    explanation = (
        "Keeps only means over the rows and columns of each matrix's squared gradients and rebuilds the rest from them in every step: "
        "state of a fraction of a percent of the parameters, for temporaries of the size of a matrix while it works."
    )


OPTIMIZATIONS: tuple[Optimization, ...] = (Sgd(), Adam(), AdamW(), RmsProp(), Adafactor())

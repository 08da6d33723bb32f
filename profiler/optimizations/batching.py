"""Batching: how many tokens go through the model at once, and how long their gradients stay.

All of this is said by a `Workload`; the toggles are another way to say it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import Conflict, Scope
from profiler.spec import MAX_BATCH, MAX_SEQ, Job, Workload, WorkloadKind, ZeroGrad

if TYPE_CHECKING:
    from profiler.workloads import Setup

SHAPE = Family(
    name="shape",
    label="Batch and sequence",
    question="How many tokens are in one step?",
    exclusive=False,
    off_label="As the workload says",
)
GRADIENTS = Family(
    name="batching",
    label="Batching",
    question="In how many parts does a batch run, and how long do its gradients stay?",
    exclusive=False,
    off_label="As the workload says",
    workloads=frozenset((WorkloadKind.TRAIN,)),
)
_ZERO_GRAD_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html"


class WorkloadChange(Optimization):
    """Something that the workload has a field for."""

    @abstractmethod
    def changed(self, workload: Workload, options: Mapping[str, Value]) -> Workload:
        """Return the workload with this switched on.

        Raises:
            SpecError: the workload cannot be so.
        """

    def rewrite(self, job: Job, options: Mapping[str, Value]) -> Job:
        """Return the job with the changed workload."""
        return replace(job, workload=self.changed(job.workload, options))

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Do nothing: the job says it already."""


class BatchSize(WorkloadChange):
    """Another number of sequences in a step."""

    name = "batch-size"
    family = SHAPE
    label = "Batch size"
    applies_to = Scope(part="a step's sequences")
    parameters = (
        Parameter(
            name="sequences",
            kind=ParameterKind.INTEGER,
            default=1,
            low=1,
            high=MAX_BATCH,
            help="Sequences in one step, all parts together.",
        ),
    )
    formula = "activations, logits and KV cache = those of one sequence x sequences; parameters and optimizer state do not depend on it"
    source = "Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, section 4: activations are proportional to the batch"
    explanation = (
        "Activations, logits and the key-value cache grow with the number of sequences; parameters, gradients and optimizer state do not. "
        "A smaller batch saves nothing where the peak lies in the optimizer's step. It also changes what is learned: to keep the batch and "
        "save the memory, cut it into micro-batches."
    )

    def changed(self, workload: Workload, options: Mapping[str, Value]) -> Workload:
        """Return the workload with so many sequences."""
        return replace(workload, batch=int(options["sequences"]))


class SequenceLength(WorkloadChange):
    """Another number of tokens in a sequence."""

    name = "sequence-length"
    family = SHAPE
    label = "Sequence length"
    applies_to = Scope(part="a sequence's tokens")
    aliases = ("seq-length", "context-length")
    parameters = (
        Parameter(
            name="tokens",
            kind=ParameterKind.INTEGER,
            default=0,
            low=0,
            high=MAX_SEQ,
            help="Tokens a sequence, in decode those of the prompt; 0 for half of what the workload has.",
        ),
    )
    formula = "activations, logits and KV cache are proportional to the tokens; the scores of eager attention to their square"
    source = "Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, equation 2: s b h (34 + 5 a s / h) bytes a layer"
    explanation = (
        "Activations and logits grow with the tokens of a sequence, the key-value cache too; what eager or math attention keeps of its "
        "scores grows with their square. Nothing else does. Shorter sequences show the model less context."
    )

    def changed(self, workload: Workload, options: Mapping[str, Value]) -> Workload:
        """Return the workload with so many tokens a sequence."""
        return replace(workload, seq=int(options["tokens"]) or max(workload.seq // 2, 1))


class MicroBatches(WorkloadChange):
    """Gradient accumulation."""

    name = "micro-batches"
    family = GRADIENTS
    label = "Micro-batches"
    applies_to = Scope(part="a step's forwards and backwards")
    aliases = ("gradient-accumulation", "grad-accumulation")
    conflicts = (
        Conflict(
            others=("optimizer-in-backward",),
            why="optimizer-in-backward updates with the gradient of each backward, and micro-batches add up those of several",
            instead="Use one micro-batch",
        ),
    )
    parameters = (
        Parameter(
            name="count", kind=ParameterKind.INTEGER, default=2, low=1, high=MAX_BATCH, help="Equal parts that the batch is cut into."
        ),
    )
    formula = "activations and logits = those of batch / count sequences; from the second part on, beside all gradients"
    source = "Huang et al. 2018, https://arxiv.org/abs/1811.06965, section 2.2; loss / count, then backward, as in transformers' Trainer"
    explanation = (
        "Runs forward and backward for one part of the batch after another and adds up their gradients before one step: activations and "
        "logits are those of one part, for the same result but for rounding. The gradients of the first part stay while the next ones "
        "run, so that activations now meet a full set of gradients, and nothing is saved where the peak lies in the optimizer's step. "
        "Each part is smaller work, which keeps a GPU less busy."
    )

    def changed(self, workload: Workload, options: Mapping[str, Value]) -> Workload:
        """Return the workload in so many parts."""
        return replace(workload, micro_batches=int(options["count"]))

    def is_said(self, job: Job) -> bool:
        """Tell whether the batch is cut."""
        return job.workload.micro_batches > 1


class KeepGradients(WorkloadChange):
    """zero_grad(set_to_none=False)."""

    name = "keep-gradients"
    family = GRADIENTS
    label = "Keep gradients"
    applies_to = Scope(part="gradients between steps")
    aliases = ("set-to-none-false",)
    conflicts = (
        Conflict(
            others=("optimizer-in-backward",),
            why="optimizer-in-backward frees each gradient once it is used, so that there is none to keep",
        ),
    )
    formula = "gradients = the trained parameters' bytes, in forward too"
    source = f"torch.optim.Optimizer.zero_grad(set_to_none=False): {_ZERO_GRAD_DOCS}"
    explanation = (
        "zero_grad fills the gradients with zeros and does not drop them, as torch did by default before 2.0. They are there in every "
        "phase from the first backward on: where the peak lies in forward or early in backward, it grows by all of them. It costs memory "
        "and saves none; it keeps the same buffers, which code that holds on to them needs."
    )

    def changed(self, workload: Workload, options: Mapping[str, Value]) -> Workload:
        """Return the workload with gradients that stay."""
        return replace(workload, set_to_none=False)

    def is_said(self, job: Job) -> bool:
        """Tell whether zero_grad fills with zeros."""
        return not job.workload.set_to_none


class ZeroGradPlace(WorkloadChange):
    """Where in the step the gradients are dropped."""

    name = "zero-grad"
    family = GRADIENTS
    label = "Place of zero_grad"
    applies_to = Scope(part="gradients between steps")
    parameters = (
        Parameter(
            name="place",
            kind=ParameterKind.CHOICE,
            default=ZeroGrad.BEFORE_BACKWARD.value,
            choices=tuple(place.value for place in ZeroGrad),
            help="after_step drops them as soon as they were used; before_forward when the next step begins; before_backward after its "
            "forward, which meets the old ones.",
        ),
    )
    formula = "before_backward: the peak of forward + the trained parameters' bytes, from the second step on"
    source = f"torch.optim.Optimizer.zero_grad: {_ZERO_GRAD_DOCS}"
    explanation = (
        "Scripts call zero_grad right after the step, at the top of the loop, or between forward and backward. The last is common, and "
        "keeps the gradients of the step before through all of forward, where they lie beside all activations. Dropping them after the "
        "step costs nothing; where the peak lies in backward or in the optimizer's step, it saves nothing either."
    )

    def changed(self, workload: Workload, options: Mapping[str, Value]) -> Workload:
        """Return the workload with zero_grad at this place."""
        return replace(workload, zero_grad=ZeroGrad(str(options["place"])))


OPTIMIZATIONS: tuple[Optimization, ...] = (BatchSize(), SequenceLength(), MicroBatches(), KeepGradients(), ZeroGradPlace())

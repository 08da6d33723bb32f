"""A `Job` -> the statements of its training step, prefill or decode, in the order that its `Workload` says.

The one piece of code that every engine runs: measured it runs as it is, simulated it runs on fake tensors. The order of statements is
memory (what is still alive when the next thing is made), so it is written out here and nowhere else. An engine learns what is happening
from the `Observer`; optimizations change what happens through the `Setup`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from profiler.errors import SpecError
from profiler.models.build import build_model
from profiler.models.catalogue import facts_of
from profiler.models.config import ConfigFacts, check_workload
from profiler.models.inputs import make_tokens, next_inputs, prompt_inputs, training_batch
from profiler.recording import Phase, Role
from profiler.spec import Job, WorkloadKind, ZeroGrad


class Observer(Protocol):
    """What an engine is told while a workload runs."""

    def phase(self, phase: Phase) -> AbstractContextManager[None]:
        """Enclose the statements of one phase."""

    def step(self, index: int) -> AbstractContextManager[None]:
        """Enclose one step; ``index`` counts from 0, warm-up steps included."""

    def built(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Learn of the model and its optimizer, once, inside the build phase; no optimizer without training."""

    def scalar(self, name: str, value: float) -> None:
        """Learn a number of the current step, such as its loss."""


def find_ranks(num_ranks: int, rank: int) -> None:
    """Check that a launcher such as torchrun has made this process one of ``num_ranks``.

    Raises:
        SpecError: it has not.
    """
    found = distributed.get_world_size() if distributed.is_initialized() else 1
    if found != num_ranks:
        raise SpecError(f"This run is one of {num_ranks} processes, and {found} was launched. Simulate it, or launch it with torchrun.")


@dataclass
class Setup:
    """How a job runs, filled by the optimizations that are switched on."""

    dtype: torch.dtype = torch.float32
    """Of the parameters when they are made."""
    attention: str | None = None
    """The attention implementation, in transformers' words; None leaves the choice to it."""
    make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None
    """Given the parameters that require gradients; needed for training only."""
    load: Callable[[nn.Module, torch.device], nn.Module] | None = None
    """Given the model on the host, brings it to the device in another form than it was made; None moves it as it is."""
    transforms: list[Callable[[nn.Module], nn.Module]] = field(default_factory=list)
    """Change the model after it is built and moved, in this order, before the optimizer is made."""
    once_built: list[Callable[[nn.Module, Optimizer], None]] = field(default_factory=list)
    """Given the model and its optimizer, once both are there, before the first step; for training only."""
    forward_contexts: list[Callable[[], AbstractContextManager[Any]]] = field(default_factory=list)
    """Entered anew around every forward, the first outermost; backward runs outside of them."""
    make_cache: Callable[[nn.Module, int], Any] | None = None
    """Given the model and how many tokens it must hold, makes the KV cache of a prompt; None leaves that to the model."""
    contexts: list[Callable[[], AbstractContextManager[Any]]] = field(default_factory=list)
    """Entered once around all steps, the first outermost."""
    inference_context: Callable[[], AbstractContextManager[Any]] = lambda: torch.inference_mode()  # found when entered
    """Entered around the forwards of prefill and decode."""
    make_scaler: Callable[[], GradScaler] = lambda: GradScaler("cpu", enabled=False)
    """Scales the loss, and the gradients back before the step; one that is not enabled does nothing."""
    begin_ranks: Callable[[int, int], None] = find_ranks
    """Given the number of processes that train together, and which of them shall be shown, makes this process one of them."""
    allocator_settings: str = ""
    """Of a GPU's caching allocator, as PYTORCH_ALLOC_CONF says them; empty for torch's."""
    allow_tf32: bool = False
    """Whether float32 products on a GPU may run as tf32."""
    tell: Callable[[Sequence[Tensor], Role], None] = lambda tensors, role: None
    """Tells the engine, which sets this, what tensors are for that an optimization makes and torch's hooks cannot know."""
    notes: list[str] = field(default_factory=list)
    """What an optimization found when it was applied, such as that it changed no layer; engines keep them as facts."""


def run(job: Job, setup: Setup, observer: Observer, *, read_loss: Callable[[Tensor], float | None] = Tensor.item) -> None:
    """Build the model and run the job's steps, telling ``observer``.

    Args:
        job: what to run; its device is one that torch knows.
        setup: how, as `profiler.optimizations.registry.setup_for` returns it.
        observer: is told of phases, steps and losses.
        read_loss: turns a micro-batch's loss into a number. An engine whose tensors have no values returns None: no loss is told.

    Raises:
        SpecError: the model cannot be built, or cannot run this workload.
    """
    facts = facts_of(job.model)
    check_workload(facts, job.workload, job.model.name)
    torch.manual_seed(job.workload.seed)
    with observer.phase(Phase.BUILD):
        model = _built_model(job, setup)
        optimizer = _built_optimizer(job, setup, model)
        observer.built(model, optimizer)
    loop = _Loop(facts, job, model, setup, observer)
    with ExitStack() as stack:
        for context in setup.contexts:
            stack.enter_context(context())
        if optimizer is not None:
            _train(loop, optimizer, read_loss)
        elif job.workload.kind is WorkloadKind.PREFILL:
            _prefill(loop)
        else:
            _decode(loop)


def _built_model(job: Job, setup: Setup) -> nn.Module:
    model = build_model(job.model, setup.dtype, job.device if setup.load is None else "cpu", attention=setup.attention)
    if setup.load is not None:
        model = setup.load(model, torch.device(job.device))
    for transform in setup.transforms:
        model = transform(model)
    return model.train(job.workload.kind is WorkloadKind.TRAIN)


def _built_optimizer(job: Job, setup: Setup, model: nn.Module) -> Optimizer | None:
    if job.workload.kind is not WorkloadKind.TRAIN:
        return None
    if setup.make_optimizer is None:
        raise SpecError("Training needs an optimizer. Switch one on, such as adamw.")
    optimizer = setup.make_optimizer(parameter for parameter in model.parameters() if parameter.requires_grad)
    for tell in setup.once_built:
        tell(model, optimizer)
    return optimizer


class _Loop:
    """What the steps of one run share."""

    def __init__(self, facts: ConfigFacts, job: Job, model: nn.Module, setup: Setup, observer: Observer) -> None:
        self.facts, self.workload, self.model, self.setup, self.observer = facts, job.workload, model, setup, observer
        self.device = torch.device(job.device)
        self.num_steps = job.workload.warmup_steps + job.workload.steps
        self.generator = torch.Generator().manual_seed(job.workload.seed)
        self.random = Random(job.workload.seed)
        self.scaler = setup.make_scaler()
        self.kept: Any = None
        """The last outputs, where the workload keeps them."""

    def tokens(self) -> Tensor:
        """Return the token ids of the next batch, still on the host."""
        return make_tokens(self.facts, self.workload.batch, self.workload.seq, self.random)

    def training_batch(self) -> dict[str, Tensor]:
        """Return the next training batch, on the device."""
        return training_batch(self.facts, self.tokens(), self.generator, self.device)

    def prompt(self) -> dict[str, Any]:
        """Return the next prompt, on the device, with the cache that is to hold it where the setup makes one."""
        inputs = prompt_inputs(self.facts, self.tokens().to(self.device))
        if self.setup.make_cache is not None:
            decodes = self.workload.kind is WorkloadKind.DECODE
            inputs["past_key_values"] = self.setup.make_cache(self.model, self.workload.seq + self.workload.new_tokens * decodes)
        return inputs

    def forward(self, inputs: dict[str, Any]) -> Any:
        """Call the model. Outputs that are kept are dropped here, when there are new ones."""
        with ExitStack() as stack:
            for context in self.setup.forward_contexts:
                stack.enter_context(context())
            outputs = self.model(**inputs)
        self.kept = outputs if self.workload.keep_outputs else None
        return outputs


def _train(loop: _Loop, optimizer: Optimizer, read_loss: Callable[[Tensor], float | None]) -> None:
    for index in range(loop.num_steps):
        with loop.observer.step(index):
            with loop.observer.phase(Phase.DATA):
                batch = loop.training_batch()  # the batch before lives until here, as in a loop over a data loader
            _zero_grad(loop, optimizer, ZeroGrad.BEFORE_FORWARD)
            losses = [
                _micro_batch(loop, optimizer, inputs, number, read_loss)
                for number, inputs in enumerate(_cut(batch, loop.workload.micro_batches))
            ]
            with loop.observer.phase(Phase.OPTIMIZER):
                loop.scaler.step(optimizer)
                loop.scaler.update()
            _zero_grad(loop, optimizer, ZeroGrad.AFTER_STEP)
            known = [loss for loss in losses if loss is not None]
            if known:
                loop.observer.scalar("loss", sum(known))


def _micro_batch(
    loop: _Loop, optimizer: Optimizer, inputs: dict[str, Any], number: int, read_loss: Callable[[Tensor], float | None]
) -> float | None:
    """Run forward and backward of one part of the batch and return its share of the loss.

    The outputs, and with them the logits, are alive through backward and gone before the optimizer's step, unless they are kept.
    """
    with loop.observer.phase(Phase.FORWARD):
        outputs = loop.forward(inputs)
        loss = outputs.loss
        if loop.workload.micro_batches > 1:
            loss = loss / loop.workload.micro_batches  # so that the gradients add up to the batch's mean
    if number == 0:
        _zero_grad(loop, optimizer, ZeroGrad.BEFORE_BACKWARD)
    with loop.observer.phase(Phase.BACKWARD):
        loop.scaler.scale(loss).backward()
    return read_loss(loss)


def _zero_grad(loop: _Loop, optimizer: Optimizer, place: ZeroGrad) -> None:
    if loop.workload.zero_grad is place:
        with loop.observer.phase(Phase.ZERO_GRAD):
            optimizer.zero_grad(set_to_none=loop.workload.set_to_none)


def _cut(batch: dict[str, Tensor], num_parts: int) -> Iterator[dict[str, Any]]:
    """Yield the micro-batches: views of the batch."""
    parts = {name: tensor.chunk(num_parts) for name, tensor in batch.items()}
    for number in range(num_parts):
        yield {name: tensors[number] for name, tensors in parts.items()}


def _prefill(loop: _Loop) -> None:
    for index in range(loop.num_steps):
        with loop.observer.step(index):
            with loop.observer.phase(Phase.DATA):
                inputs = loop.prompt()
            with loop.observer.phase(Phase.PREFILL), loop.setup.inference_context():
                outputs = loop.forward(inputs)
            del outputs  # the logits and the cache live until the prompt is read


def _decode(loop: _Loop) -> None:
    for index in range(loop.num_steps):
        with loop.observer.step(index), loop.setup.inference_context():
            with loop.observer.phase(Phase.DATA):
                inputs = loop.prompt()
            with loop.observer.phase(Phase.PREFILL):
                outputs = loop.forward(inputs)
                token = outputs.logits[:, -1:].argmax(-1)
            with loop.observer.phase(Phase.DECODE):
                for _ in range(loop.workload.new_tokens):
                    inputs = next_inputs(loop.facts, token, outputs)
                    del outputs  # only its cache lives on, in the inputs
                    outputs = loop.forward(inputs)
                    token = outputs.logits.argmax(-1)
            del outputs, inputs, token

"""A job and a parameter count -> this project's own closed formula of the peak, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from profiler.errors import SpecError
from profiler.estimate.activations import activation_bytes, loss_bytes
from profiler.estimate.result import Estimate, Part
from profiler.estimate.states import StateEstimate, estimate_states
from profiler.models.catalogue import facts_of
from profiler.models.config import ConfigFacts
from profiler.optimizations.activations import Checkpointing, checkpointed_every
from profiler.optimizations.adapters import Lora
from profiler.optimizations.base import Optimization
from profiler.optimizations.optimizer_in_backward import UPDATE
from profiler.optimizations.optimizers import OPTIMIZER, Adam, AnyOptimizer
from profiler.optimizations.parallelism import PARALLELISM, shares_of
from profiler.optimizations.precision import PRECISION, Precision
from profiler.optimizations.registry import REGISTRY, chosen, validate
from profiler.recording import Category
from profiler.spec import Job, WorkloadKind, ZeroGrad

_SOURCE = "https://arxiv.org/abs/2205.05198"
_KNOWN_FAMILIES = (PARALLELISM, PRECISION, OPTIMIZER, UPDATE)
_ALWAYS = "Buffers, workspaces and the allocator's rounding come on top."

Parts = dict[Part, int]


def own_estimate(num_parameters: int, job: Job) -> Estimate:
    """Return the fullest of the instants that closed formulas know.

    Training has four: forward ends, backward begins (activations, logits, log-probabilities and the gradients of both), backward ends
    (all gradients), the optimizer's step (its temporaries: one copy of the parameters with foreach, two of the largest tensor with
    for-loop). States are exact from the parameter count (`profiler.estimate.states`); activations are counted by operator
    (`profiler.estimate.activations`); of a checkpointed layer its input, and one layer whole while backward makes it again (Chen et al.
    2016, https://arxiv.org/abs/1604.06174). Inference is weights, KV cache and the prompt's logits.

    Args:
        num_parameters: with tied weights counted once.
        job: need not be validated.

    Raises:
        SpecError: the job is not possible.
    """
    job = validate(job)
    states = estimate_states(num_parameters, job)
    if job.workload.kind is not WorkloadKind.TRAIN:
        parts, formula, gaps = _inference_parts(states), "weights + max(cache of the prompt + logits, cache)", ""
    else:
        parts, gaps = _training_parts(states, job)
        formula = "weights + optimizer state + max(activations + logits + loss + their gradients, gradients + optimizer temporaries)"
    return Estimate(
        name="Headroom",
        formula_text=formula,
        source_url=_SOURCE,
        validity=" ".join(sentence for sentence in (_ALWAYS, gaps, _left_out(job)) if sentence),
        parts={part: num_bytes for part, num_bytes in parts.items() if num_bytes},
    )


def _training_parts(states: StateEstimate, job: Job) -> tuple[Parts, str]:
    facts = facts_of(job.model)
    try:
        activations, gaps = _activations(facts, job), ""
    except SpecError:
        activations, gaps = 0, f"Activations are left out: there is no formula for {facts.model_type}."
    instants = list(_instants(states, job, facts, activations))
    return max(instants, key=lambda parts: sum(parts.values())), gaps


def _activations(facts: ConfigFacts, job: Job) -> int:
    micro_batch = job.workload.batch // job.workload.micro_batches
    itemsize, seq = chosen(job, Precision)[0].product_itemsize, job.workload.seq
    count = partial(activation_bytes, batch=micro_batch, seq=seq, itemsize=itemsize, on_cpu=job.device == "cpu")
    whole, every = count(facts), checkpointed_every(job)
    if every is None or facts.num_layers < 2:
        return whole
    around_and_one = count(replace(facts, num_layers=1))
    layer = (whole - around_and_one) // (facts.num_layers - 1)
    num_checkpointed = -(-facts.num_layers // every)
    inputs = num_checkpointed * micro_batch * seq * facts.hidden_size * itemsize
    return around_and_one + (facts.num_layers - num_checkpointed) * layer + inputs


def _instants(states: StateEstimate, job: Job, facts: ConfigFacts, activations: int) -> Iterator[Parts]:
    """Yield the parts of each instant of the last step."""
    workload = job.workload
    loss = loss_bytes(facts, workload.batch // workload.micro_batches * workload.seq, chosen(job, Precision)[0].product_itemsize)
    several_steps = workload.warmup_steps + workload.steps > 1
    before_step = states.optimizer_state_bytes if several_steps else 0
    in_step, after_step = _step_gradient_bytes(states, job)
    accumulated = states.gradients_bytes if workload.micro_batches > 1 else 0
    if several_steps and not workload.set_to_none:
        accumulated = max(accumulated, after_step)
    stale = after_step if several_steps and workload.zero_grad is ZeroGrad.BEFORE_BACKWARD else 0
    always: Parts = {
        Category.PARAMETER: states.weights_bytes,
        Category.MASTER_PARAMETER: states.master_bytes,
        Category.COMMUNICATION: states.buckets_bytes,
    }
    forward: Parts = always | {
        Category.OPTIMIZER_STATE: before_step,
        Category.ACTIVATION: activations,
        Category.LOGITS: states.logits_bytes + loss,
    }
    yield forward | {Category.GRADIENT: max(accumulated, stale)}
    yield forward | {Category.GRADIENT: accumulated, Category.ACTIVATION_GRADIENT: 2 * loss}
    backward: Parts = {Category.GRADIENT: states.gradients_bytes, Category.OPTIMIZER_STATE: before_step}
    yield always | backward | {Category.LOGITS: states.logits_bytes}
    temporaries = _optimizer_temporary_bytes(states, job, facts)
    step: Parts = {Category.GRADIENT: in_step, Category.OPTIMIZER_STATE: states.optimizer_state_bytes}
    yield always | step | {Category.OPTIMIZER_TEMPORARY: temporaries}


def _step_gradient_bytes(states: StateEstimate, job: Job) -> tuple[int, int]:
    """Return the gradients in the optimizer's step and those that it leaves: master weights have float32 ones instead, or besides."""
    if not states.master_bytes:
        return states.gradients_bytes, states.gradients_bytes
    if chosen(job, Precision)[1].get("gradients") == "kept":
        return states.gradients_bytes + states.master_bytes, states.gradients_bytes
    return states.master_bytes, states.master_bytes


def _optimizer_temporary_bytes(states: StateEstimate, job: Job, facts: ConfigFacts) -> int:
    """Return what Adam makes in its step; the others' formulas need less than the other instants hold."""
    shares = shares_of(job)[0]
    updated_bytes = (states.master_bytes or states.gradients_bytes) // (shares.optimizer_state // shares.gradients)
    optimizer, options = chosen(job, AnyOptimizer)  # type: ignore[type-abstract]  # looked for, not made
    arguments = optimizer.arguments(options, job) if isinstance(optimizer, Adam) else {"fused": True}
    if arguments.get("fused"):
        return 0
    if arguments.get("foreach") or states.gradients_bytes < states.weights_bytes:
        return updated_bytes  # of the trained parameters; adapters are small, so for a loop it is more than enough
    precision = chosen(job, Precision)[0]
    return 2 * facts.vocab_size * facts.hidden_size * (precision.master_itemsize or precision.itemsize)


def _inference_parts(states: StateEstimate) -> Parts:
    beside_weights = states.lower_bound_bytes - states.weights_bytes
    cache = min(states.kv_cache_bytes, beside_weights)
    if beside_weights > states.kv_cache_bytes:
        cache = beside_weights - states.logits_bytes
    return {Category.PARAMETER: states.weights_bytes, Category.KV_CACHE: cache, Category.LOGITS: beside_weights - cache}


def _is_known(item: Optimization) -> bool:
    return item.family in _KNOWN_FAMILIES or isinstance(item, Lora) or type(item) is Checkpointing


def _left_out(job: Job) -> str:
    """Return a sentence on the optimizations that the formulas know nothing of."""
    names = [name for name in (toggle.name for toggle in validate(job).toggles) if not _is_known(REGISTRY[name])]
    unknown = f"The formulas know nothing of {', '.join(names)}." if names else ""
    if shares_of(job)[0].parameters > 1:
        unknown = f"Parameters that are gathered for a while, and whole gradients, are left out. {unknown}".strip()
    precision = chosen(job, Precision)[0]
    if precision.product_itemsize == precision.itemsize:
        return unknown
    return f"Activations are counted as if all were in half precision, without the weights' casts. {unknown}".strip()

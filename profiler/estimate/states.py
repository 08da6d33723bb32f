"""A job and a parameter count -> bytes that its run needs at least, by closed formulas.

A lower bound, to warn before a run that cannot fit: what must exist together at one known instant. Activations, temporaries, buffers,
workspaces and the allocator's rounding come on top, so the true peak is higher, often several times.
"""

from __future__ import annotations

from dataclasses import dataclass

from profiler.errors import SpecError
from profiler.estimate.activations import FLOAT32_BYTES, logits_bytes
from profiler.estimate.blocks import block_of
from profiler.estimate.kv_cache import dynamic_cache_bytes
from profiler.estimate.lora import ATTENTION_PROJECTIONS, ATTENTION_TARGETS, adapter_num_parameters
from profiler.estimate.quantization import quantized_bytes
from profiler.models.catalogue import facts_of
from profiler.models.config import ConfigFacts, Head
from profiler.optimizations.adapters import QUERY_VALUE, FineTuning, lora_options
from profiler.optimizations.optimizer_in_backward import updates_in_backward
from profiler.optimizations.optimizers import AnyOptimizer
from profiler.optimizations.parallelism import shares_of
from profiler.optimizations.precision import Precision
from profiler.optimizations.registry import REGISTRY, chosen, validate
from profiler.spec import Job, Workload, WorkloadKind
from profiler.units import format_bytes


@dataclass(frozen=True, kw_only=True)
class StateEstimate:
    """Bytes that closed formulas predict for a run."""

    weights_bytes: int
    """Parameters x bytes of the dtype; adapters count with their float32."""
    gradients_bytes: int
    """As the trained weights: every trained parameter's ``.grad`` at the end of backward; 0 where backward frees each as it comes."""
    optimizer_state_bytes: int
    """What the optimizer keeps for the trained parameters, at least; step counters (4 bytes a tensor) are left out."""
    logits_bytes: int
    """Micro-batch x tokens x vocabulary in the dtype: the output layer's result, alive from forward to the end of backward."""
    kv_cache_bytes: int
    """In prefill and decode, keys and values of all tokens at the end."""
    lower_bound_bytes: int
    """What exists together at the fullest instant that the formulas know."""
    master_bytes: int = 0
    """Float32 copies of the trained parameters, where the optimizer keeps them."""
    buckets_bytes: int = 0
    """Of DDP, beside the gradients and as large."""


def estimate_states(num_parameters: int, job: Job) -> StateEstimate:
    """Return what the job's run needs at least, without its activations.

    Training, per parameter of ``b`` bytes: ``b`` weights + ``b`` gradients + ``b * k`` optimizer state, with ``k`` = 2 for Adam, 1 for SGD
    with momentum, 0 for SGD; with master weights their 4 more, and state of float32. With LoRA only its adapters count so, in float32; the
    rest is weights alone, as is everything where a part is trained in other ways. In float32 with Adam 16 bytes, as in ZeRO (Rajbhandari et
    al. 2019, https://arxiv.org/abs/1910.02054, section 3.1), whose 16 are split differently (2 + 2 + 12) because it trains in mixed
    precision. The logits are added because the outputs are alive until backward has ended, when all gradients exist. From the second step
    on that instant also has the optimizer's state. Of several ranks, one: what they share is divided by their number, as in ZeRO, and DDP's
    buckets are as large as the gradients.

    Inference: weights + KV cache, ``2 * layers * kv_heads * head_dim * b`` a token (Pope et al. 2022, https://arxiv.org/abs/2211.05102,
    section 3.3), and the prompt's logits in the forward over the prompt.

    Args:
        num_parameters: with tied weights counted once, as `profiler.models.build.inspect_model` counts them.
        job: need not be validated.

    Raises:
        SpecError: the job is not possible.
    """
    job = validate(job)
    precision = chosen(job, Precision)[0]
    weights_bytes, itemsize = num_parameters * precision.itemsize, precision.product_itemsize
    facts, workload = facts_of(job.model), job.workload
    if workload.kind is not WorkloadKind.TRAIN:
        return _estimate_inference(weights_bytes, facts, workload, itemsize)
    trained_bytes, trained_itemsize = weights_bytes, precision.itemsize
    rank_and_targets, method = lora_options(job), _fine_tuning(job)
    if rank_and_targets is not None:
        trained_bytes, trained_itemsize = _adapter_bytes(facts, *rank_and_targets), FLOAT32_BYTES
        weights_bytes += trained_bytes
    elif method is not None:
        trained_bytes = 0  # it is a part of them, and none keeps the bound a lower one
        if method.weight_format is not None:
            weights_bytes = quantized_bytes(num_parameters, method.weight_format)
    optimizer, options = chosen(job, AnyOptimizer)  # type: ignore[type-abstract]  # looked for, not made
    master_itemsize = precision.master_itemsize if trained_itemsize == precision.itemsize else 0
    num_trained = trained_bytes // trained_itemsize
    state_bytes = optimizer.state_bytes(num_trained, master_itemsize or trained_itemsize, options)
    master_bytes = num_trained * master_itemsize
    gradients_bytes = 0 if updates_in_backward(job) else trained_bytes
    shares, has_buckets = shares_of(job)
    weights_bytes, gradients_bytes = -(-weights_bytes // shares.parameters), -(-gradients_bytes // shares.gradients)
    state_bytes, master_bytes = -(-state_bytes // shares.optimizer_state), -(-master_bytes // shares.optimizer_state)
    buckets_bytes = trained_bytes if has_buckets else 0
    held_logits_bytes = logits_bytes(workload.batch // workload.micro_batches * workload.seq, facts.vocab_size, itemsize)
    several_steps = workload.warmup_steps + workload.steps > 1
    beside_gradients = state_bytes + held_logits_bytes if several_steps else max(state_bytes, held_logits_bytes)
    return StateEstimate(
        weights_bytes=weights_bytes,
        gradients_bytes=gradients_bytes,
        optimizer_state_bytes=state_bytes,
        logits_bytes=held_logits_bytes,
        master_bytes=master_bytes,
        buckets_bytes=buckets_bytes,
        kv_cache_bytes=0,
        lower_bound_bytes=weights_bytes + gradients_bytes + master_bytes + buckets_bytes + beside_gradients,
    )


_TARGETS = {"attention": ATTENTION_PROJECTIONS, QUERY_VALUE: ATTENTION_TARGETS}
"""By what LoRA's option says; otherwise all linear layers of a block."""


def _fine_tuning(job: Job) -> FineTuning | None:
    """Return the way in which a job trains less than its whole model."""
    items = (REGISTRY[toggle.name] for toggle in validate(job).toggles)
    return next((item for item in items if isinstance(item, FineTuning)), None)


def _adapter_bytes(facts: ConfigFacts, rank: int, targets: str) -> int:
    """Return the bytes of LoRA's adapters; 0, which keeps the bound a lower one, where the model's layers are not known."""
    try:
        names = _TARGETS.get(targets) or block_of(facts).linears
        return adapter_num_parameters(facts, rank, names) * FLOAT32_BYTES
    except SpecError:
        return 0


def shortfall_warning(estimate: StateEstimate, available_bytes: int) -> str | None:
    """Return why a run cannot fit into ``available_bytes``, as a sentence; None where the lower bound fits."""
    if estimate.lower_bound_bytes <= available_bytes:
        return None
    needed, available = format_bytes(estimate.lower_bound_bytes), format_bytes(available_bytes)
    return (
        f"This run needs at least {needed} before any activation, and {available} is available. "
        "Choose a smaller model, a shorter number format, LoRA, or an optimizer with less state."
    )


def _estimate_inference(weights_bytes: int, facts: ConfigFacts, workload: Workload, itemsize: int) -> StateEstimate:
    decode = workload.kind is WorkloadKind.DECODE
    prompt_tokens = 1 if facts.head is Head.SEQ2SEQ else workload.seq
    held_logits_bytes = logits_bytes(workload.batch * prompt_tokens, facts.vocab_size, itemsize)
    prefill_bytes = dynamic_cache_bytes(facts, workload, 0, itemsize)
    cache_bytes = dynamic_cache_bytes(facts, workload, workload.new_tokens if decode else 0, itemsize)
    return StateEstimate(
        weights_bytes=weights_bytes,
        gradients_bytes=0,
        optimizer_state_bytes=0,
        logits_bytes=held_logits_bytes,
        kv_cache_bytes=cache_bytes,
        lower_bound_bytes=weights_bytes + max(prefill_bytes + held_logits_bytes, cache_bytes),
    )

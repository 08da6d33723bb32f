"""A job and a parameter count -> what well-known calculators answer, computed as they compute it, their omissions included."""

from __future__ import annotations

from profiler.errors import SpecError
from profiler.estimate.blocks import Block, block_of
from profiler.estimate.result import Estimate, Part
from profiler.models.catalogue import facts_of
from profiler.models.config import ConfigFacts
from profiler.optimizations.precision import Precision
from profiler.optimizations.registry import chosen
from profiler.recording import Category
from profiler.spec import Job, WorkloadKind

_ACCELERATE = "https://huggingface.co/docs/accelerate/usage_guides/model_size_estimator"
_DEEPSPEED = "https://deepspeed.readthedocs.io/en/latest/memory.html"
_ELEUTHER = "https://github.com/EleutherAI/cookbook/blob/main/calc/calc_transformer_mem.py"
_MEGATRON = "https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/theoretical_memory_usage.py"

ELEUTHER_GRADIENT_BYTES = 4
ELEUTHER_OPTIMIZER_BYTES = 12
MEGATRON_BYTES = 18


def deepspeed_zero2_bytes(num_parameters: int, num_gpus: int = 1, *, offload: bool = False) -> int:
    """Return the GPU bytes that DeepSpeed's estimator for ZeRO stages 1 and 2 prints: ``4*P + 16*P/N``, or ``2*P`` with offload.

    Printed as "GB", which are GiB. Where the ZeRO paper has ``2*P + 14*P/N``, it counts a second copy in 16 bits. States only.
    """
    return 2 * num_parameters if offload else 4 * num_parameters + 16 * num_parameters // num_gpus


def deepspeed_zero3_bytes(
    num_parameters: int, largest_layer: int, num_gpus: int = 1, *, offload_optimizer: bool = False, offload_parameters: bool = False
) -> int:
    """Return the GPU bytes that DeepSpeed's estimator for ZeRO stage 3 prints: ``4*largest_layer + 18*P/N``.

    With the optimizer offloaded ``2*P/N`` instead of ``18*P/N``, with the parameters too nothing of them. States only; GiB, as above.

    Args:
        num_parameters: of the whole model.
        largest_layer: parameters of the module with the most of its own.
        num_gpus: all together.
        offload_optimizer: keep its state on the host.
        offload_parameters: keep the parameters there too; means nothing without the optimizer's offload.
    """
    if not offload_optimizer:
        return 4 * largest_layer + 18 * num_parameters // num_gpus
    return 4 * largest_layer + (0 if offload_parameters else 2 * num_parameters // num_gpus)


def accelerate_training_bytes(weights_bytes: int) -> int:
    """Return what ``accelerate estimate-memory`` prints for training with Adam: four times the weights, in every dtype."""
    return 4 * weights_bytes


def megatron_bytes_per_parameter(data_parallel: int | None = None) -> float:
    """Return Megatron's bytes of weights, gradients and optimizer: 18, or ``6 + 12/d`` with a distributed optimizer over ``d`` ranks.

    16-bit weights, a float32 gradient, a float32 copy and two moments of Adam: ``2 + 4 + 12``.
    """
    return MEGATRON_BYTES if data_parallel is None else 6 + 12 / data_parallel


def megatron_activation_bytes(block: Block, *, num_layers: int, batch: int, seq: int, vocab_size: int, tensor_parallel: int = 1) -> int:
    """Return Megatron's activations with sequence parallelism and selective recomputation.

    ``s*b*h*(18 + 4*f/h)`` a layer, ``8*s*b`` of token ids, ``s*b*h`` of dropout and ``4*s*b*h*(1 + v/h)`` of output layer and loss, all
    divided by the tensor-parallel ranks. 16-bit activations; a gated feed-forward counts as a plain one.
    """
    tokens, hidden = seq * batch, block.hidden
    layers = num_layers * tokens * (18 * hidden + 4 * block.inner)
    return (layers + 8 * tokens + tokens * hidden + 4 * tokens * (hidden + vocab_size)) // tensor_parallel


def eleuther_num_parameters(block: Block, *, num_layers: int, vocab_size: int, seq: int) -> float:
    """Return the parameters as the cookbook counts them: never tied, a learned position a token of the sequence, norms with biases."""
    hidden = block.hidden
    attention = int(2 * (1 + block.key_value / block.query) * num_layers * hidden * hidden)
    feed_forward = (3 if block.gated else 2) * num_layers * hidden * block.inner
    return 2 * vocab_size * hidden + hidden * seq + 8 * hidden * num_layers + 2 * hidden + attention + feed_forward


def eleuther_activation_bytes(block: Block, *, num_layers: int, batch: int, seq: int, checkpointing: bool = False) -> int:
    """Return the cookbook's activations: ``s*b*h*L*(34 + 5*a*s/h)`` whatever the dtype.

    With checkpointing the term of the scores is dropped, which is selective recomputation's figure and not ``2*s*b*h*L``.
    """
    scores = 0 if checkpointing else 5 * block.num_heads * seq
    return num_layers * batch * seq * (34 * block.hidden + scores)


def eleuther_cache_bytes(block: Block, *, num_layers: int, batch: int, tokens: int) -> int:
    """Return the cookbook's KV cache, ``2 * h * L * tokens * batch``: 16 bits, all heads, and keys or values where there are both."""
    return 2 * block.hidden * num_layers * tokens * batch


def accelerate_estimate(num_parameters: int, job: Job) -> Estimate:
    """Return accelerate's row: the weights, four times in training."""
    weights_bytes = num_parameters * chosen(job, Precision)[0].itemsize
    training = job.workload.kind is WorkloadKind.TRAIN
    states: dict[Part, int] = {
        Category.GRADIENT: weights_bytes,
        Category.OPTIMIZER_STATE: accelerate_training_bytes(weights_bytes) - 2 * weights_bytes,
    }
    return Estimate(
        name="accelerate estimate-memory",
        formula_text="4 x weights" if training else "weights",
        source_url=_ACCELERATE,
        validity="Adam, batch 1; no activations, no logits." if training else "Weights alone: no cache, no activations.",
        parts={Category.PARAMETER: weights_bytes, **(states if training else {})},
    )


def deepspeed_estimate(num_parameters: int, job: Job) -> Estimate | None:
    """Return DeepSpeed's row for one GPU without offload, stage 3; None for inference."""
    if job.workload.kind is not WorkloadKind.TRAIN:
        return None
    facts = facts_of(job.model)
    largest_layer = facts.vocab_size * facts.hidden_size
    total = deepspeed_zero3_bytes(num_parameters, largest_layer)
    parts: dict[Part, int] = {
        Category.PARAMETER: 2 * num_parameters,
        Category.GRADIENT: 4 * num_parameters,
        Category.OPTIMIZER_STATE: 12 * num_parameters,
    }
    return Estimate(
        name="DeepSpeed, ZeRO stage 3 on one GPU",
        formula_text="4 x largest layer + 18 x parameters",
        source_url=_DEEPSPEED,
        validity="Mixed precision with Adam whatever the job says; states alone. The largest layer is taken to be the embedding.",
        parts={**parts, Category.COMMUNICATION: total - sum(parts.values())},
    )


def eleuther_estimate(num_parameters: int, job: Job) -> Estimate | None:
    """Return the cookbook's row for one GPU without ZeRO; it counts the parameters itself. None for what it has no formula for."""
    facts, workload = facts_of(job.model), job.workload
    block = _block(facts)
    if block is None:
        return None
    mixed = chosen(job, Precision)[0].itemsize == 2
    counted = eleuther_num_parameters(block, num_layers=facts.num_layers, vocab_size=facts.vocab_size, seq=workload.seq)
    parts: dict[Part, int] = {Category.PARAMETER: int(counted * (2 if mixed else 4))}
    if workload.kind is WorkloadKind.TRAIN:
        micro_batch = workload.batch // workload.micro_batches
        parts[Category.GRADIENT] = int(counted * ELEUTHER_GRADIENT_BYTES)
        parts[Category.OPTIMIZER_STATE] = int(counted * ELEUTHER_OPTIMIZER_BYTES)
        parts[Category.ACTIVATION] = eleuther_activation_bytes(block, num_layers=facts.num_layers, batch=micro_batch, seq=workload.seq)
    else:
        tokens = workload.seq + (workload.new_tokens if workload.kind is WorkloadKind.DECODE else 1)
        parts[Category.KV_CACHE] = eleuther_cache_bytes(block, num_layers=facts.num_layers, batch=workload.batch, tokens=tokens)
        parts[Category.ACTIVATION] = 34 * workload.seq * workload.batch * block.hidden
    return Estimate(
        name="EleutherAI cookbook",
        formula_text="parameters x (2 or 4 + 4 + 12) + s*b*h*L*(34 + 5*a*s/h)",
        source_url=_ELEUTHER,
        validity="Untied embeddings, Adam with a float32 copy, 16-bit activations with scores; no logits. Its KV cache lacks a factor 2.",
        parts=parts,
    )


def megatron_estimate(num_parameters: int, job: Job) -> Estimate | None:
    """Return Megatron's row for one GPU; None for inference and for what is not a stack of blocks."""
    facts, workload = facts_of(job.model), job.workload
    block = _block(facts)
    if block is None or workload.kind is not WorkloadKind.TRAIN:
        return None
    activations = megatron_activation_bytes(
        block,
        num_layers=facts.num_layers,
        batch=workload.batch // workload.micro_batches,
        seq=workload.seq,
        vocab_size=facts.vocab_size,
    )
    return Estimate(
        name="Megatron-LM",
        formula_text="18 x parameters + s*b*h*L*(18 + 4*f/h) + 4*s*b*(h + v)",
        source_url=_MEGATRON,
        validity="Mixed precision with Adam and float32 gradients whatever the job says; selective recomputation; the exact parameters.",
        parts={
            Category.PARAMETER: 2 * num_parameters,
            Category.GRADIENT: 4 * num_parameters,
            Category.OPTIMIZER_STATE: 12 * num_parameters,
            Category.ACTIVATION: activations,
        },
    )


def _block(facts: ConfigFacts) -> Block | None:
    try:
        return block_of(facts)
    except SpecError:
        return None

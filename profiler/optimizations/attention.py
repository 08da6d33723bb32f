"""Attention: by which kernel scores and their softmax are made, and so whether they are ever in memory as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from profiler.devices import GPUS
from profiler.models.catalogue import config_of, facts_of
from profiler.models.config import adds_position_bias, attention_dropout
from profiler.optimizations import precision
from profiler.optimizations.base import Family, Optimization, Value
from profiler.optimizations.master_weights import MasterWeights
from profiler.optimizations.scope import TRANSFORMERS, Conflict, Scope
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from profiler.workloads import Setup

ATTENTION = Family(
    name="attention",
    label="Attention",
    question="Which kernel makes the attention scores?",
    off_label="The library's choice",
)
_AMPERE = (8, 0)
"""Its first compute capability."""
_PRECISIONS = (*precision.OPTIMIZATIONS, MasterWeights())
_HALF_PRECISIONS = {item.name for item in _PRECISIONS if isinstance(item, precision.Precision) and item.product_itemsize == 2}
_SDPA_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html"


class Attention(Optimization):
    """A way to compute attention."""

    family = ATTENTION
    applies_to: ClassVar[Scope] = Scope(part="attention", heads=TRANSFORMERS)
    implementation: ClassVar[str] = "sdpa"
    """Transformers' word for it."""
    kernels: ClassVar[tuple[str, ...]] = ()
    """Those of torch's SDPBackend that may be used; empty for all."""
    source = _SDPA_DOCS

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Build the model with this implementation, and pin its kernel."""
        setup.attention = self.implementation
        if self.kernels:
            from torch.nn.attention import SDPBackend, sdpa_kernel

            setup.contexts.append(partial(sdpa_kernel, [getattr(SDPBackend, name) for name in self.kernels]))

    def refusal(self, job: Job) -> str | None:
        """Refuse models without attention."""
        if not facts_of(job.model).num_heads:
            return f"{job.model.name} has no attention, so {self.name} changes nothing. Switch it off."
        return super().refusal(job)


class Sdpa(Attention):
    """Torch chooses among its kernels."""

    name = "sdpa"
    label = "SDPA"
    formula = "the chosen kernel's: flash and efficient keep out and log-sum-exp, no scores"
    explanation = (
        "torch.nn.functional.scaled_dot_product_attention, which picks flash, memory-efficient or plain math by dtype, mask, head size and "
        "card. What transformers uses by default where a model supports it."
    )


class Eager(Attention):
    """Scores as tensors, operator by operator."""

    name = "eager"
    label = "Eager"
    aliases = ("eager-attention",)
    implementation = "eager"
    formula = "saved scores = batch x heads x seq^2 numbers a layer, once or more (softmax in float32, dropout, the values' dtype)"
    source = "Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 1"
    explanation = (
        "Writes the scores of all pairs of tokens to memory, then their softmax, then the result: memory grows with the square of the "
        "sequence. What everything else is compared with."
    )


class Math(Attention):
    """SDPA's own composition of operators."""

    name = "math"
    label = "SDPA, math"
    aliases = ("math-attention",)
    kernels = ("MATH",)
    formula = "scores = batch x heads x seq^2 numbers a layer"
    explanation = "SDPA without a fused kernel: what torch falls back to where none fits. Keeps the softmax of the scores for backward."


class Flash(Attention):
    """FlashAttention 2."""

    name = "flash"
    label = "SDPA, flash"
    aliases = ("flash-attention",)
    kernels = ("FLASH_ATTENTION",)
    formula = "saved = q, k, v, out and one float32 a query (log-sum-exp); no scores"
    source = f"Dao 2023, https://arxiv.org/abs/2307.08691; {_SDPA_DOCS}"
    explanation = (
        "Computes attention tile by tile and never writes the scores: memory grows with the sequence, not its square. On CUDA only for "
        "float16 and bfloat16, without a mask, from Ampere on."
    )

    conflicts = (
        Conflict(
            others=("static-cache",),
            why="decoding masks the room of a static cache that no token has yet, and flash takes no mask",
            instead="Use sdpa",
            workloads=frozenset((WorkloadKind.DECODE,)),
            on_cpu=False,
        ),
    )

    def refusal(self, job: Job) -> str | None:
        """Refuse what its kernels do not take: float32 and masks on GPUs, dropout on CPUs. Other masks are known once a model runs."""
        if job.device == "cpu":
            return _refuse_dropout(job) or super().refusal(job)
        gpu = GPUS.get(job.device)
        if gpu is not None and gpu.compute_capability < _AMPERE:
            return f"flash is a kernel of GPUs from Ampere on, and {gpu.label} is older. Choose sdpa or math."
        if _computes_in_float32(job):
            return "flash takes float16 and bfloat16, and attention is in float32 here. Switch on bfloat16 or amp first, or choose sdpa."
        return _refuse_mask(job) or super().refusal(job)


def _computes_in_float32(job: Job) -> bool:
    """Tell whether nothing of a job makes queries in half precision; quantized weights and adapters compute in the model's precision.

    That qlora's are float32 whatever the precision is a conflict that it declares, and that is checked before.
    """
    toggles = {toggle.name: dict(toggle.options) for toggle in job.toggles}
    if toggles.get("fsdp2", {}).get("compute") == "bfloat16":
        return False
    return not _HALF_PRECISIONS & toggles.keys()


def _refuse_dropout(job: Job) -> str | None:
    if job.workload.kind is not WorkloadKind.TRAIN or not attention_dropout(config_of(job.model)):
        return None
    return f"flash has no dropout on CPUs, and {job.model.name} trains attention with it. Choose sdpa, or simulate on a GPU."


def _refuse_mask(job: Job) -> str | None:
    if adds_position_bias(facts_of(job.model)):
        return f"flash takes no mask on GPUs, and {job.model.name} adds a bias by position to its scores. Choose sdpa or efficient."
    if _fills_the_window(job, job.workload.seq + (job.workload.new_tokens if job.workload.kind is WorkloadKind.DECODE else 0)):
        return f"flash takes no mask on GPUs, and {job.model.name} masks what its window no longer sees. Choose sdpa, or fewer tokens."
    return None


def _fills_the_window(job: Job, num_tokens: int) -> bool:
    """Tell whether these are as many tokens as a sliding window sees, from which on transformers makes a mask of it."""
    window = facts_of(job.model).sliding_window
    return window is not None and num_tokens >= window


class Efficient(Attention):
    """The memory-efficient kernel."""

    name = "efficient"
    label = "SDPA, efficient"
    aliases = ("efficient-attention", "mem-efficient")
    applies_to = Scope(part="attention", heads=TRANSFORMERS, on_cpu=False)
    kernels = ("EFFICIENT_ATTENTION",)
    formula = "saved = q, k, v, out and one float32 a query (log-sum-exp), and the mask in the dtype of q where there is one"
    source = f"Rabe and Staats 2021, https://arxiv.org/abs/2112.05682; {_SDPA_DOCS}"
    explanation = (
        "A fused kernel like flash that also takes float32 and masks. A boolean mask is converted to the numbers' dtype in every layer, "
        "and that copy is saved for backward."
    )

    def refusal(self, job: Job) -> str | None:
        """Refuse heads that share keys, which transformers repeats for their queries only where there is a mask."""
        reason, facts = super().refusal(job), facts_of(job.model)
        if reason is None and facts.num_kv_heads != facts.num_heads and not _fills_the_window(job, job.workload.seq):
            heads = f"{job.model.name} has {facts.num_kv_heads} for {facts.num_heads}"
            return f"efficient takes as many heads of keys as of queries, and {heads}. Choose sdpa, flash or math."
        return reason


OPTIMIZATIONS: tuple[Optimization, ...] = (Sdpa(), Eager(), Math(), Flash(), Efficient())

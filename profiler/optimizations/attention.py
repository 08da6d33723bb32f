"""Attention: by which kernel scores and their softmax are made, and so whether they are ever in memory as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from profiler.devices import GPUS
from profiler.models.catalogue import facts_of
from profiler.optimizations import precision
from profiler.optimizations.base import Family, Optimization, Value
from profiler.optimizations.master_weights import MasterWeights
from profiler.spec import Job

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

    def refusal(self, job: Job) -> str | None:
        """Refuse, of GPUs, those without the kernel and attention in float32, which it does not take. Masks are known once a model runs."""
        gpu = GPUS.get(job.device)
        if gpu is not None and gpu.compute_capability < _AMPERE:
            return f"flash is a kernel of GPUs from Ampere on, and {gpu.label} is older. Choose sdpa or math."
        if job.device != "cpu" and _computes_in_float32(job):
            return "flash takes float16 and bfloat16, and attention is in float32 here. Switch on bfloat16 or amp first, or choose sdpa."
        return super().refusal(job)


def _computes_in_float32(job: Job) -> bool:
    """Tell whether nothing of a job makes queries in half precision; quantized weights and adapters compute in the model's precision."""
    toggles = {toggle.name: dict(toggle.options) for toggle in job.toggles}
    if toggles.get("fsdp2", {}).get("compute") == "bfloat16":
        return False
    return not _HALF_PRECISIONS & toggles.keys()


class Efficient(Attention):
    """The memory-efficient kernel."""

    name = "efficient"
    label = "SDPA, efficient"
    aliases = ("efficient-attention", "mem-efficient")
    kernels = ("EFFICIENT_ATTENTION",)
    formula = "saved = q, k, v, out and one float32 a query (log-sum-exp), and the mask in the dtype of q where there is one"
    source = f"Rabe and Staats 2021, https://arxiv.org/abs/2112.05682; {_SDPA_DOCS}"
    explanation = (
        "A fused kernel like flash that also takes float32 and masks. A boolean mask is converted to the numbers' dtype in every layer, "
        "and that copy is saved for backward."
    )

    def refusal(self, job: Job) -> str | None:
        """Refuse the CPU, which has no such kernel."""
        if job.device == "cpu":
            return "efficient is a kernel of CUDA, and the device is cpu. Choose flash or math, or simulate on a GPU."
        return super().refusal(job)


OPTIMIZATIONS: tuple[Optimization, ...] = (Sdpa(), Eager(), Math(), Flash(), Efficient())

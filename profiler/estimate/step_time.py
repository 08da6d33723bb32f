"""Operators (FLOPs, bytes, dtype) and a GPU -> how long they would take at best, by a roofline; and the FLOPs of a step by closed forms.

For comparing one setting with another on one GPU, never as a measurement: each operator takes as long as the slowest of its arithmetic, its
memory traffic and its launch, one after another, at fixed shares of the GPU's peak rates. Real kernels reach other shares, some are fused,
and caches spare traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from profiler.devices import Gpu
from profiler.recording import Provenance
from profiler.units import format_count, format_duration_us

_Array = np.ndarray[Any, np.dtype[Any]]


class Bound(Enum):
    """What an operator's time is decided by. The value says it to users."""

    COMPUTE = "arithmetic"
    MEMORY = "memory traffic"
    LAUNCH = "launching kernels"


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What the estimate assumes; shown beside it.

    The shares are round numbers that large matrix products and plain elementwise kernels reach on data center GPUs; they are not fitted.
    """

    compute_efficiency: float = 0.7
    """Share of the peak rate that arithmetic reaches."""
    bandwidth_efficiency: float = 0.8
    """Share of the peak bandwidth that memory traffic reaches."""
    launch_us: float = 4.0
    """The least that a kernel takes: what one launch costs the processor."""
    allow_tf32: bool = False
    """Whether float32 products run as tf32; torch's default is not."""

    def sentences(self, gpu: Gpu) -> list[str]:
        """Return the assumptions in words."""
        bandwidth = f"{format_count(gpu.bandwidth_bytes_per_s)}B/s"
        tf32 = ["Products in float32 run as tf32."] if self.allow_tf32 else []
        return [
            f"Arithmetic reaches {self.compute_efficiency:.0%} of the peak rate of {gpu.label} for its dtype.",
            f"Memory traffic reaches {self.bandwidth_efficiency:.0%} of {bandwidth}; every operator reads and writes the GPU's memory.",
            f"An operator takes at least {format_duration_us(self.launch_us)}; none overlaps another, and nothing waits for data.",
            *tf32,
        ]


@dataclass(frozen=True, eq=False, kw_only=True)
class OperatorCosts:
    """What operators do, one value each.

    Raises:
        ValueError: the columns differ in length.
    """

    flops: _Array
    """A multiplication and an addition are two."""
    bytes: _Array
    """Read and written."""
    dtypes: Sequence[str]
    """In which the arithmetic is done, as torch writes it, such as ``bfloat16``."""

    def __post_init__(self) -> None:
        if not len(self.flops) == len(self.bytes) == len(self.dtypes):
            raise ValueError("the columns differ in length")


@dataclass(frozen=True, eq=False, kw_only=True)
class StepTime:
    """How long operators would take."""

    gpu: Gpu
    assumptions: Assumptions
    durations_us: _Array
    """One value an operator."""
    bound_us: dict[Bound, float]
    """The total by what decides it."""
    flops: int
    peak_share: float
    """Share of the peak rate at which the arithmetic would be done over the whole time (MFU); 0 without arithmetic."""
    provenance: Provenance = Provenance.ESTIMATED

    @property
    def total_us(self) -> float:
        """The time of all operators."""
        return float(self.durations_us.sum())


class Roofline:
    """How long one operator takes: max(FLOPs / rate, bytes / bandwidth, launch), with shares of both peaks.

    After Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model"
    (https://doi.org/10.1145/1498765.1498785). Valid for comparing settings on one GPU.

    Args:
        gpu: the card.
        assumptions: which shares, and what a launch costs.
    """

    def __init__(self, gpu: Gpu, assumptions: Assumptions | None = None) -> None:
        self.gpu = gpu
        self.assumptions = assumptions or Assumptions()
        self._bytes_per_us = gpu.bandwidth_bytes_per_s * self.assumptions.bandwidth_efficiency / 1e6
        self._rates: dict[str, float] = {}

    def peak_flops_per_s(self, dtype: str) -> float:
        """Return the card's peak rate in a dtype, as torch writes it."""
        if dtype not in self._rates:
            self._rates[dtype] = self.gpu.peak_flops_per_s(dtype, allow_tf32=self.assumptions.allow_tf32)
        return self._rates[dtype]

    def duration_us(self, flops: int, num_bytes: int, dtype: str) -> float:
        """Return the time of one operator.

        Args:
            flops: a multiplication and an addition are two.
            num_bytes: read and written.
            dtype: in which the arithmetic is done, as torch writes it.
        """
        return float(max(self.limits_us(flops, num_bytes, self.peak_flops_per_s(dtype))))

    def limits_us(self, flops: Any, num_bytes: Any, peak_flops_per_s: Any) -> tuple[Any, Any, float]:
        """Return what each `Bound` asks for, in its order; of numbers or of arrays."""
        compute_us = flops / (peak_flops_per_s * self.assumptions.compute_efficiency) * 1e6
        return compute_us, num_bytes / self._bytes_per_us, self.assumptions.launch_us


def estimate_step_time(costs: OperatorCosts, gpu: Gpu, assumptions: Assumptions | None = None) -> StepTime:
    """Return how long operators would take one after another, each as `Roofline` says."""
    roofline = Roofline(gpu, assumptions)
    names, codes = np.unique(np.asarray(costs.dtypes, str), return_inverse=True)
    rates = np.array([roofline.peak_flops_per_s(str(name)) for name in names], float)[codes]
    flops = np.asarray(costs.flops, float)
    candidates = np.stack(np.broadcast_arrays(*roofline.limits_us(flops, np.asarray(costs.bytes, float), rates)))
    bound, durations_us = candidates.argmax(axis=0), candidates.max(axis=0)
    total_us = float(durations_us.sum())
    return StepTime(
        gpu=gpu,
        assumptions=roofline.assumptions,
        durations_us=durations_us,
        bound_us={kind: float(durations_us[bound == code].sum()) for code, kind in enumerate(Bound)},
        flops=int(np.sum(costs.flops, dtype=np.int64)),
        peak_share=float((flops / rates).sum() * 1e6 / total_us) if total_us else 0.0,
    )


def forward_flops(num_parameters: int, tokens: int, *, num_layers: int = 0, width: int = 0, seq: int = 0, is_causal: bool = True) -> int:
    """Return the FLOPs of one forward over ``tokens``: 2 N D + 4 L d S D; a causal mask halves the second term.

    Each weight multiplies and adds once a token; in each layer, a token's scores and their weighted sum take 2 d S each (Kaplan et al.
    2020, https://arxiv.org/abs/2001.08361, section 2.1; the factor of the causal mask as in Dao 2023, https://arxiv.org/abs/2307.08691,
    section 4.1). Valid for dense models; norms, activations and the loss are left out. Kernels that compute masked scores too do the
    double of the second term.

    Args:
        num_parameters: N, weights that take part in products: with the output layer, without the embedding of tokens and positions. Where
            both are tied, the weight counts once.
        tokens: D, of all sequences together.
        num_layers: L; 0 leaves attention out.
        width: d, heads x head dimension, of the queries.
        seq: S, tokens that one token may look at; a sliding window bounds it.
        is_causal: whether a token sees only those before it. Not for decode, where S is what the one token looks at.
    """
    attention = 4 * num_layers * width * seq * tokens
    return 2 * num_parameters * tokens + (attention // 2 if is_causal else attention)


def training_flops(
    num_parameters: int, tokens: int, *, num_layers: int = 0, width: int = 0, seq: int = 0, is_causal: bool = True, recompute: bool = False
) -> int:
    """Return the FLOPs of a training step's forward and backward: 6 N D + 12 L d S D; a causal mask halves the second term.

    Backward does twice the forward: one product for the gradient of the input, one for that of the weight (Chowdhery et al. 2022, PaLM,
    https://arxiv.org/abs/2204.02311, appendix B). Valid where all weights are trained. The optimizer's step, a few FLOPs a parameter, is
    left out.

    Args:
        num_parameters: as for `forward_flops`; the other sizes too.
        tokens: of all sequences together.
        num_layers: 0 leaves attention out.
        width: of the queries.
        seq: tokens that one token may look at.
        is_causal: whether a token sees only those before it.
        recompute: whether activation checkpointing does every layer's forward again; the output layer's, which is not, is counted too.
    """
    forward = forward_flops(num_parameters, tokens, num_layers=num_layers, width=width, seq=seq, is_causal=is_causal)
    return forward * (4 if recompute else 3)

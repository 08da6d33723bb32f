"""Bytes that an earlier trial found on another model of this shape -> the same bytes counted here, without training, in seconds.

The trial trained a Llama as wide and deep as the lab's on the same text and counted shares of its float32 bytes: what the libraries hold,
what their files take, and for coders what becomes of the matrices alone. Its losses come from one seed and are not repeated here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from profiler.compression import lab
from profiler.compression.experiment import Experiment
from profiler.compression.held import held_bytes
from profiler.compression.kmeans import nearest
from profiler.compression.streams import GAP_BITS, bits_for, with_gaps, zero_of
from profiler.compression.subject import Subject

TOLERANCE = 0.1
HELD, FILE, WHILE_PRUNING = "held in memory", "file", "parameters and masks while pruning"
FIXED, CODED, ENTROPY = "matrices at fixed length", "matrices as coded", "matrices by entropy"
FIXED_GAPS = "matrices at fixed length, with gaps in each"
"""The lab's file takes the shorter of gaps and a full index for each; the trial did not."""
WHOLE = "matrices as coded, the rest as float32"
"""The lab's file codes the rest, too; the trial did not."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One share of the trial."""

    stages: tuple[str, ...]
    quantity: str
    share: float

    def deviation(self) -> float:
        """Return how much more is counted here, as a share of the trial's figure."""
        return counted(self.stages)[self.quantity] / self.share - 1

    @property
    def agrees(self) -> bool:
        """Whether it was reproduced."""
        return abs(self.deviation()) <= TOLERANCE


@cache
def counted(stages: tuple[str, ...]) -> dict[str, float]:
    """Return the shares of the untouched model that techniques leave, by quantity."""
    torch.set_num_threads(1)
    before, now = _bytes(()), _bytes(stages)
    shares = {name: now[name] / before[name] for name in (HELD, FILE)}
    shares[WHILE_PRUNING] = now.get("pruning_parameters_and_masks_bytes", 0.0) / before[HELD]
    matrices_bytes = now.get("matrices_bytes", before[HELD])
    shares[WHOLE] = 1 - (matrices_bytes - now.get("coded_bytes", matrices_bytes)) / before[HELD]
    counts = {FIXED: "fixed_bytes", CODED: "coded_bytes", ENTROPY: "entropy_bytes", FIXED_GAPS: FIXED_GAPS}
    return shares | {name: now.get(key, 0.0) / matrices_bytes for name, key in counts.items()}


@cache
def _bytes(stages: tuple[str, ...]) -> dict[str, float]:
    experiment, task = Experiment.of("lab", stages), lab.load("lab")
    engine = torch.backends.quantized.engine
    try:
        with tempfile.TemporaryDirectory() as name, torch.no_grad():
            subject = Subject(task=task, model=task.build(), folder=Path(name))
            with torch.enable_grad():
                for stage, technique in zip(experiment.stages, experiment.techniques, strict=True):
                    technique.apply(subject, technique.read_options(dict(stage.options)))
            subject.logits(task.held_out()[0].inputs)
            path = Path(name) / "file"
            written = subject.file.write(subject.model, path)
            held, gaps = held_bytes(subject.model), _bytes_with_gaps(subject)
            return {HELD: held, FILE: path.stat().st_size, FIXED_GAPS: gaps, **subject.extra, **written}
    finally:
        torch.backends.quantized.engine = engine


def _bytes_with_gaps(subject: Subject) -> float:
    """Return what the pruned matrices of shared weights take as gaps and indices of fixed length."""
    bits = 0
    for matrix in subject.matrices() if subject.codebooks else ():
        codebook = subject.codebooks[matrix.name]
        if matrix.name in subject.masks:
            gaps, _ = with_gaps(nearest(matrix.weight, codebook).flatten().numpy(), zero_of(codebook))
            bits += len(gaps) * (GAP_BITS + bits_for(len(codebook))) + 8 * codebook.numel() * codebook.element_size()
    return bits / 8


def figures() -> tuple[Figure, ...]:
    """Return every figure that the catalogue can repeat."""
    return tuple(Figure(stages=stages, quantity=quantity, share=share) for stages, quantity, share in _all())


_Found = tuple[tuple[str, ...], str, float]


def _all() -> Iterator[_Found]:
    for name, held, file in _WHOLE:
        yield (name,), HELD, held
        if file is not None:
            yield (name,), FILE, file
    yield from _sparse()
    yield ("prune-2-4", "store-2-4"), HELD, 0.565
    yield ("zstd",), CODED, 0.926
    yield ("bfloat16", "zstd"), CODED, 0.781
    yield ("ans",), ENTROPY, 0.835
    yield ("bfloat16", "ans"), ENTROPY, 0.670
    yield from _coded()


_WHOLE: tuple[tuple[str, float, float | None], ...] = (
    ("bfloat16", 0.500, 0.502),
    ("float16", 0.500, 0.502),
    ("dynamic-float16", 1.000, 1.006),
    ("dynamic-int8", 0.278, 0.287),
    ("dynamic-int8:engine=fbgemm", 0.278, 0.287),
    ("dynamic-int8:engine=onednn", 0.278, 0.287),
    ("dynamic-int8:engine=qnnpack", 0.284, 0.295),
    ("int8-weight-only", 0.286, 0.294),
    ("int8-dynamic", 0.286, 0.294),
    ("intx-weight-only:bits=4", 0.315, 0.323),
    ("intx-weight-only:bits=2", 0.315, 0.323),
    ("float8-weight-only", 0.284, 0.290),
    ("static-int8:batches=1", 1.26, None),
    ("packed-int:bits=8", 0.308, None),
    ("packed-int:bits=4", 0.187, None),
    ("packed-int:bits=2,group=32", 0.157, None),
    ("packed-int:bits=1,group=32", 0.127, None),
    ("nf4", 0.196, None),
    ("prune-structured:amount=0.25", 0.839, None),
    ("prune-structured:amount=0.5", 0.679, None),
    ("layer-drop", 0.768, None),
    ("low-rank:rank=16", 0.251, None),
    ("low-rank:rank=32", 0.429, None),
    ("low-rank:rank=48", 0.608, None),
    ("low-rank:rank=64", 0.786, None),
    ("distill:steps=1", 0.152, None),
)
"""What is held and written, by a technique alone."""

_SPARSE = {
    0.3: (3.331, 1.377, 0.751, 0.739),
    0.5: (2.403, 1.006, 0.565, 0.583),
    0.7: (1.476, 0.635, 0.380, 0.422),
    0.8: (1.012, 0.450, 0.287, 0.336),
    0.9: (0.549, 0.264, 0.194, 0.244),
    0.95: (0.317, 0.172, 0.148, 0.194),
}
"""By the share of zeros: CSR as torch makes it, CSR with 32-bit indices, bitmask; and the file through zstd."""


def _sparse() -> Iterator[_Found]:
    for zeros, (as_made, int32, bitmask, zstd) in _SPARSE.items():
        pruned = f"prune-global:amount={zeros}"
        yield (pruned,), WHILE_PRUNING, 1.927
        yield (pruned, "store-csr:index=int64,tight=false"), HELD, as_made
        yield (pruned, "store-csr"), HELD, int32
        yield (pruned, "store-bitmask"), HELD, bitmask
        yield (pruned, "zstd"), FILE, zstd


_CODED: tuple[tuple[float, int, float, float, float, float, float], ...] = (
    (0.0, 8, 0.258, 0.228, 0.228, 0.215, 0.284),
    (0.0, 5, 0.157, 0.127, 0.126, 0.124, 0.190),
    (0.0, 4, 0.126, 0.102, 0.100, 0.100, 0.167),
    (0.0, 3, 0.094, 0.084, 0.083, 0.082, 0.151),
    (0.7, 5, 0.123, 0.068, 0.067, 0.065, 0.136),
    (0.7, 4, 0.113, 0.061, 0.060, 0.059, 0.129),
    (0.8, 4, 0.076, 0.045, 0.045, 0.043, 0.115),
)
"""Share of zeros, bits of k-means; the matrices at fixed length, by Huffman, by ANS, by entropy; and the whole model."""


def _coded() -> Iterator[_Found]:
    for zeros, bits, fixed, huffman, ans, entropy, whole in _CODED:
        shared = (*([f"prune-global:amount={zeros}"] if zeros else []), f"k-means:bits={bits}")
        yield (*shared, "ans"), FIXED_GAPS if zeros else FIXED, fixed
        yield (*shared, "huffman"), CODED, huffman
        yield (*shared, "ans"), CODED, ans
        yield (*shared, "ans"), ENTROPY, entropy
        yield (*shared, "huffman"), WHOLE, whole

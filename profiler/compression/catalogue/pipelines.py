"""Techniques in an order that has a name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Techniques, one after the other."""

    name: str
    label: str
    stages: tuple[str, ...]
    """As toggles are written."""
    explanation: str


ALL: tuple[Pipeline, ...] = (
    Pipeline(
        name="deep-compression",
        label="Deep Compression: prune, fine-tune, share, code",
        stages=("prune-global:amount=0.7", "fine-tune", "k-means:bits=5", "huffman"),
        explanation="The pipeline of Han et al. 2016. Its 35 times are AlexNet's file: most of its weights were in three wide layers.",
    ),
    Pipeline(
        name="prune-quantize",
        label="Prune, fine-tune, quantize, code",
        stages=("prune-global:amount=0.5", "fine-tune", "int8-weight-only", "zstd"),
        explanation="What is pruned saves on disk only, through the coder; the memory is int8's.",
    ),
    Pipeline(
        name="smaller-quantized",
        label="Remove neurons, fine-tune, int8",
        stages=("prune-structured:amount=0.25", "fine-tune", "int8-weight-only"),
        explanation="Two savings of memory that multiply where they meet in the same matrices.",
    ),
    Pipeline(
        name="sparse-bitmask",
        label="Prune, fine-tune, bitmask",
        stages=("prune-global:amount=0.7", "fine-tune", "store-bitmask"),
        explanation="Pruning that saves memory, for the price of expanding each matrix when it is used.",
    ),
)

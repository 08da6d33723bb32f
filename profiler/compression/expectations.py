"""Techniques worth trying and where a model has its parameters -> the bytes to expect, by formula. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from profiler.compression.lab import Shape


class Reach(StrEnum):
    """Which of a model's parameters a technique changes."""

    ALL = "all"
    LINEAR = "linear layers, the output layer among them"
    LINEAR_AND_RECURRENT = "linear and recurrent layers, the output layer among them"
    INNER_LINEAR = "linear layers but the output layer"
    INNER = "linear and recurrent layers but the output layer"


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a candidate makes of the parameters that it reaches, by formulas; what it loses is not theirs to say."""

    stages: tuple[str, ...]
    reach: Reach
    memory: float
    """Held bytes of what it reaches, as a share of float32."""
    disk: float
    model: str | None = None
    """The only model that it is for, whose widths or depth these shares follow; None: any."""


_PRUNED = ("prune-global:amount=0.7", "fine-tune")
WORTH_TRYING: tuple[Expectation, ...] = (
    Expectation(stages=("bfloat16",), reach=Reach.ALL, memory=0.5, disk=0.5),
    Expectation(stages=("int8-weight-only",), reach=Reach.LINEAR, memory=0.26, disk=0.27),
    Expectation(stages=("int8-dynamic",), reach=Reach.LINEAR, memory=0.26, disk=0.27),
    Expectation(stages=("float8-weight-only",), reach=Reach.LINEAR, memory=0.26, disk=0.27),
    Expectation(stages=("int4-weight-only",), reach=Reach.LINEAR, memory=0.141, disk=0.147),
    Expectation(stages=("packed-int:bits=4",), reach=Reach.LINEAR, memory=0.156, disk=0.165),
    Expectation(stages=("nf4",), reach=Reach.LINEAR, memory=0.174, disk=0.18),
    Expectation(stages=("packed-int:bits=2,group=32",), reach=Reach.LINEAR, memory=0.125, disk=0.132),
    Expectation(stages=("packed-int:bits=1,group=32",), reach=Reach.LINEAR, memory=0.094, disk=0.1),
    Expectation(stages=("dynamic-int8",), reach=Reach.LINEAR_AND_RECURRENT, memory=0.26, disk=0.27),
    Expectation(stages=("prune-structured:amount=0.5", "fine-tune"), reach=Reach.INNER_LINEAR, memory=0.654, disk=0.654),
    Expectation(stages=("prune-structured:amount=0.25", "fine-tune", "int8-weight-only"), reach=Reach.LINEAR, memory=0.22, disk=0.23),
    Expectation(stages=("low-rank:rank=32", "fine-tune"), reach=Reach.INNER_LINEAR, memory=0.385, disk=0.385, model="lab"),
    Expectation(stages=("layer-drop", "fine-tune"), reach=Reach.INNER_LINEAR, memory=0.75, disk=0.75, model="lab"),
    Expectation(stages=("prune-global:amount=0.5", "fine-tune", "store-bitmask"), reach=Reach.INNER_LINEAR, memory=0.53, disk=0.53),
    Expectation(stages=(*_PRUNED, "store-bitmask"), reach=Reach.INNER_LINEAR, memory=0.33, disk=0.33),
    Expectation(stages=("prune-blocks:amount=0.7", "fine-tune", "store-bsr"), reach=Reach.INNER_LINEAR, memory=0.34, disk=0.34),
    Expectation(stages=("ans",), reach=Reach.ALL, memory=1.0, disk=0.835),
    Expectation(stages=("bfloat16", "ans"), reach=Reach.ALL, memory=0.5, disk=0.34),
    Expectation(stages=("int8-weight-only", "ans"), reach=Reach.LINEAR, memory=0.26, disk=0.22),
    Expectation(stages=("k-means:bits=5", "ans"), reach=Reach.INNER, memory=1.0, disk=0.126),
    Expectation(stages=("k-means:bits=4", "ans"), reach=Reach.INNER, memory=1.0, disk=0.1),
    Expectation(stages=("k-means:bits=3", "ans"), reach=Reach.INNER, memory=1.0, disk=0.083),
    Expectation(stages=(*_PRUNED, "k-means:bits=5", "ans"), reach=Reach.INNER, memory=1.0, disk=0.067),
)
"""Candidates of every target. Their shares are formulas; losses are published, or measured."""


def expected_ratio(shape: Shape, reach: Reach, share: float) -> float:
    """Return the share that is left of a model's bytes.

    Args:
        shape: where the model has its parameters.
        reach: which of them change.
        share: what is left of those.
    """
    if reach is Reach.ALL:
        return share
    reached, parted = shape.num_linear, 0
    if reach in (Reach.LINEAR_AND_RECURRENT, Reach.INNER):
        reached += shape.num_recurrent
    if reach in (Reach.LINEAR, Reach.LINEAR_AND_RECURRENT):
        reached += shape.num_output
        parted = shape.num_output if shape.output_is_embedding else 0
    return (shape.num_parameters + parted - reached * (1 - share)) / shape.num_parameters

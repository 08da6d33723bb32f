"""Packing: documents of different lengths in as few rows as they fill, instead of one padded row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import Scope
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from profiler.workloads import Setup

PACKING = Family(
    name="packing",
    label="Packing",
    question="Does every document have a row of its own?",
    off_label="One padded row a document",
    workloads=frozenset((WorkloadKind.TRAIN,)),
)


class Packing(Optimization):
    """Documents one after another in full rows."""

    name = "packing"
    family = PACKING
    label = "Packing"
    aliases = ("sequence-packing", "sample-packing")
    applies_to = Scope(part="a step's sequences")
    parameters = (
        Parameter(
            name="fill",
            kind=ParameterKind.NUMBER,
            default=0.5,
            low=0.001,
            high=1.0,
            help="Share of a padded batch that is text: the mean length of your documents divided by the row's. The rest is padding.",
        ),
    )
    formula = "rows = batch x fill, rounded up (to a multiple of the micro-batches); whatever grows with the rows shrinks with them"
    source = "Krell et al. 2021, https://arxiv.org/abs/2107.02027; TRL: https://huggingface.co/docs/trl/reducing_memory_usage#packing"
    explanation = (
        "Without it each document takes a row as long as the longest, and what it does not fill is padding, held and computed like text. "
        "Packed, the same tokens lie in fewer, full rows. Weights, gradients and optimizer state stay. Rows are counted here as perfectly "
        "full, and attention as one without a mask over documents, as kernels for packed rows do it; a mask would add rows x sequence^2 "
        "numbers."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Say that there was nothing to pack: `rewrite` has done it otherwise."""
        rows = job.workload.batch
        setup.notes.append(f"0 of {rows} rows saved: {rows} rows filled to {float(options['fill']):.0%} need as many when they are packed.")

    def rewrite(self, job: Job, options: Mapping[str, Value]) -> Job | None:
        """Return the job with as many rows as the text fills; None where that is all of them."""
        workload = job.workload
        filled = round(workload.batch * float(options["fill"]), 6)  # 100 rows filled to 0.07 are 7, not 7.000000000000001
        rows = ceil(filled / workload.micro_batches) * workload.micro_batches
        return None if rows >= workload.batch else replace(job, workload=replace(workload, batch=rows))


OPTIMIZATIONS: tuple[Optimization, ...] = (Packing(),)

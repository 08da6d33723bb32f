"""A job's estimates, and the summaries of its recordings -> one table: formulas, simulated, measured, and how far each is off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from profiler.estimate.others import accelerate_estimate, deepspeed_estimate, eleuther_estimate, megatron_estimate
from profiler.estimate.own import own_estimate
from profiler.estimate.result import Estimate
from profiler.optimizations.registry import validate
from profiler.recording import Provenance
from profiler.spec import Job

_OTHERS: tuple[Callable[[int, Job], Estimate | None], ...] = (
    accelerate_estimate,
    deepspeed_estimate,
    eleuther_estimate,
    megatron_estimate,
)
_TRUST = (Provenance.MEASURED, Provenance.IMPORTED, Provenance.SIMULATED)
"""What the others are compared with, best first."""


@dataclass(frozen=True, kw_only=True)
class ComparedPeak:
    """One number of the peak, and its error."""

    name: str
    provenance: Provenance
    peak_bytes: int
    error_percent: float | None
    """Against the reference; None for the reference itself, and where there is none."""
    note: str = ""
    """The formula and where it holds."""
    source_url: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def estimates_for(num_parameters: int, job: Job) -> list[Estimate]:
    """Return this project's estimate of a job, then those that other calculators make of it where they have a formula.

    Args:
        num_parameters: with tied weights counted once; the catalogue's ``num_parameters_with_head``, or counted.
        job: need not be validated.

    Raises:
        SpecError: the job is not possible.
    """
    job = validate(job)
    others = (estimate(num_parameters, job) for estimate in _OTHERS)
    return [own_estimate(num_parameters, job), *(estimate for estimate in others if estimate is not None)]


def compare_estimates(estimates: Iterable[Estimate], summaries: Sequence[Mapping[str, Any]] = ()) -> list[ComparedPeak]:
    """Return a row for each estimate and each recording of the same job, with its error in percent.

    The reference is the measured peak, else the imported, else the simulated one; without any, errors are None.

    Args:
        estimates: of the job.
        summaries: of its recordings, as `profiler.analysis.summary.summarize` returns them.
    """
    ranked = sorted(summaries, key=lambda summary: _TRUST.index(Provenance(summary["provenance"])))
    reference_bytes = int(ranked[0]["peak_allocated_bytes"]) if ranked else 0
    formulas = [
        ComparedPeak(
            name=estimate.name,
            provenance=estimate.provenance,
            peak_bytes=estimate.total_bytes,
            error_percent=_error_percent(estimate.total_bytes, reference_bytes),
            note=f"{estimate.formula_text}. {estimate.validity}",
            source_url=estimate.source_url,
        )
        for estimate in estimates
    ]
    recorded = [
        ComparedPeak(
            name=str(summary["title"]),
            provenance=Provenance(summary["provenance"]),
            peak_bytes=int(summary["peak_allocated_bytes"]),
            error_percent=_error_percent(int(summary["peak_allocated_bytes"]), reference_bytes) if summary is not ranked[0] else None,
        )
        for summary in reversed(ranked)
    ]
    return formulas + recorded


def _error_percent(num_bytes: int, reference_bytes: int) -> float | None:
    return 100 * (num_bytes - reference_bytes) / reference_bytes if reference_bytes else None

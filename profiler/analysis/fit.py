"""A recording and a GPU -> whether the run fits there, and if not, the first request that fails and what was alive then.

Nothing is scaled: the recording's requests are replayed through the allocator with what the GPU has left beside its context. What lies
outside of the allocator is a band, so there are two replays: with the most and with the least of it. Where they agree, that is the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.out_of_memory import Explanation, explain_out_of_memory
from profiler.allocator.recorded import recorded
from profiler.allocator.trace import Trace
from profiler.allocator.what_if import Trial, compare, smallest_card
from profiler.analysis.explain import in_sentence
from profiler.analysis.instants import failure_facts
from profiler.analysis.timeline import Timeline
from profiler.devices import Gpu, OutsideBand, context_band
from profiler.recording import Category, Provenance, Recording
from profiler.units import format_bytes

_MAX_CATEGORIES = 4


class Fit(StrEnum):
    """Whether a run fits; the value is what people say."""

    FITS = "fits"
    DOES_NOT_FIT = "does not fit"
    TOO_CLOSE = "too close to say"


@dataclass(frozen=True, kw_only=True)
class FirstFailure:
    """The first request that cannot be had, and how things stood."""

    step: int
    """-1 before the first step."""
    phase: str
    module: str
    operator: str
    """These three are empty where the recording does not say."""
    alive_bytes: dict[Category, int]
    """What was alive right before, by category, largest first."""
    explanation: Explanation
    """What was asked for, why the allocator could not serve it, and which settings would have."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a run fits on a GPU. A prediction: its provenance is simulated, whatever the recording's is."""

    kind: Fit
    gpu: Gpu
    band: OutsideBand
    reserved_bytes: int
    """What the allocator reserves at most where nothing limits it."""
    capacity_bytes: int
    """The GPU's memory, the context not yet taken off."""
    missing_bytes: int
    """How much larger the memory would have to be at least; 0 where it fits."""
    num_retries: int
    """How often cached memory has to be given back for it to fit."""
    first_failure: FirstFailure | None
    """Of a run that does not fit."""
    is_complete: bool
    """False where the recording ended before its run did: the verdict is about what was recorded."""
    provenance: Provenance = Provenance.SIMULATED

    def sentences(self) -> list[str]:
        """Return the verdict in words, the verdict itself first."""
        text = [_HEADS[self.kind](self), *_failure_sentences(self.first_failure), self.band.statement]
        if not self.is_complete:
            text.append("The recording ended before its run did; what came after is not in this verdict.")
        return text

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        failure = self.first_failure
        return {
            "verdict": self.kind.value,
            "gpu": self.gpu.name,
            "provenance": self.provenance.value,
            **{name: getattr(self, name) for name in ("reserved_bytes", "capacity_bytes", "missing_bytes", "num_retries", "is_complete")},
            "outside_bytes": {"low": self.band.low_bytes, "likely": self.band.likely_bytes, "high": self.band.high_bytes},
            "outside_sources": list(self.band.sources),
            "first_failure": None if failure is None else _failure_json(failure),
            "sentences": self.sentences(),
        }


def judge_fit(recording: Recording, gpu: Gpu, *, timeline: Timeline | None = None, config: AllocatorConfig | None = None) -> Verdict:
    """Return whether what was recorded fits on a GPU, alone on it.

    Args:
        recording: of any engine; one of host memory is taken as if the GPU had served its requests.
        gpu: of the catalogue.
        timeline: the recording's timeline of the memory that is meant, where it was made already; else that of the default lane.
        config: the allocator's settings; by default those it was recorded under.

    Raises:
        FormatError: the recording's blocks overlap.
        SpecError: it holds impossible settings.
    """
    timeline = timeline or Timeline.of(recording)
    found = recorded(recording, timeline.lane.device, timeline.lane.rank)
    config, trace, band = config or found.config, found.trace.preceded_by(found.start), context_band(gpu)
    least_bytes, most_bytes = gpu.memory_bytes - band.high_bytes, gpu.memory_bytes - band.low_bytes
    unlimited, with_least, with_most = compare(trace, {"": config}, [None, least_bytes, most_bytes])
    kind = _kind(with_least, with_most)
    failure, missing_bytes = None, 0
    if kind is Fit.DOES_NOT_FIT:
        failure = _first_failure(recording, timeline, trace, config, most_bytes)
        missing_bytes = failure.explanation.smallest_capacity_bytes - most_bytes
    elif kind is Fit.TOO_CLOSE:
        missing_bytes = max(smallest_card(trace, config) - least_bytes, 0)
    return Verdict(
        kind=kind,
        gpu=gpu,
        band=band,
        reserved_bytes=unlimited.peak_reserved_bytes,
        capacity_bytes=gpu.memory_bytes,
        missing_bytes=missing_bytes,
        num_retries=with_least.num_retries if kind is Fit.FITS else 0,
        first_failure=failure,
        is_complete=recording.metadata.complete,
    )


def _kind(with_least: Trial, with_most: Trial) -> Fit:
    passes = {with_least.oom is None, with_most.oom is None}
    if len(passes) > 1:
        return Fit.TOO_CLOSE
    return Fit.FITS if passes.pop() else Fit.DOES_NOT_FIT


def _first_failure(recording: Recording, timeline: Timeline, trace: Trace, config: AllocatorConfig, capacity_bytes: int) -> FirstFailure:
    why = explain_out_of_memory(trace, config, capacity_bytes)
    assert why is not None, "the same replay runs out again"
    facts = failure_facts(recording, timeline, trace, why.row)
    alive = sorted(facts["categories_alive"].items(), key=lambda item: -item[1])
    return FirstFailure(
        **{name: facts[name] for name in ("step", "phase", "module", "operator")},
        alive_bytes={Category[name]: num_bytes for name, num_bytes in alive},
        explanation=why,
    )


def _fits(verdict: Verdict) -> str:
    free = verdict.capacity_bytes - verdict.reserved_bytes - verdict.band.high_bytes
    if free >= 0:
        return (
            f"It fits on {verdict.gpu.label}: of {format_bytes(verdict.capacity_bytes)}, the allocator reserves "
            f"{format_bytes(verdict.reserved_bytes)} at most, and {format_bytes(free)} or more stay free."
        )
    times = "once" if verdict.num_retries == 1 else f"{verdict.num_retries:,} times"
    return (
        f"It fits on {verdict.gpu.label}, but slowly: the allocator would reserve {format_bytes(verdict.reserved_bytes)}, and to stay "
        f"within {format_bytes(verdict.capacity_bytes)} it has to give back cached memory {times}."
    )


def _does_not_fit(verdict: Verdict) -> str:
    return (
        f"It does not fit on {verdict.gpu.label}: at least {format_bytes(verdict.missing_bytes)} more than its "
        f"{format_bytes(verdict.capacity_bytes)} would be needed."
    )


def _too_close(verdict: Verdict) -> str:
    return (
        f"Too close to say on {verdict.gpu.label}: the allocator would reserve {format_bytes(verdict.reserved_bytes)} of "
        f"{format_bytes(verdict.capacity_bytes)}, and what lies outside of it decides; "
        f"up to {format_bytes(verdict.missing_bytes)} are missing."
    )


_HEADS = {Fit.FITS: _fits, Fit.DOES_NOT_FIT: _does_not_fit, Fit.TOO_CLOSE: _too_close}


def _failure_sentences(failure: FirstFailure | None) -> list[str]:
    if failure is None:
        return []
    where = [f"in step {failure.step}" if failure.step >= 0 else "before the first step", failure.phase, failure.module, failure.operator]
    parts = [f"{format_bytes(size)} of {in_sentence(category)}" for category, size in list(failure.alive_bytes.items())[:_MAX_CATEGORIES]]
    alive = f" Largest then: {', '.join(parts)}." if parts else ""
    return [f"The first request that fails comes {', '.join(filter(None, where))}.{alive}", *failure.explanation.sentences()]


def _failure_json(failure: FirstFailure) -> dict[str, Any]:
    why = failure.explanation
    numbers = ("requested_bytes", "segment_bytes", "capacity_bytes", "reserved_bytes", "allocated_bytes", "smallest_capacity_bytes")
    return {
        **{name: getattr(failure, name) for name in ("step", "phase", "module", "operator")},
        **{name: getattr(why, name) for name in numbers},
        "alive_bytes": {category.name: size for category, size in failure.alive_bytes.items()},
        "remedies": [{"alloc_conf": tried.name, "peak_reserved_bytes": tried.peak_reserved_bytes} for tried in why.remedies],
    }

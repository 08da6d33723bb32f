"""Results of one experiment with several seeds -> a row: bytes three ways, and what seeds change as mean, lowest and highest."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from profiler.compression.result import Quality, Result, perplexity
from profiler.compression.target import loss_gain


@dataclass(frozen=True)
class Spread:
    """A number that differs between seeds."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Return the spread of at least one value."""
        return cls(statistics.fmean(values), min(values), max(values))

    @property
    def width(self) -> float:
        """How far the seeds are apart."""
        return self.high - self.low

    def apart_from(self, other: Spread) -> bool:
        """Return whether the two ranges have nothing in common."""
        return self.low > other.high or other.low > self.high


@dataclass(frozen=True, kw_only=True)
class Row:
    """One experiment. Shares are of the untouched model's."""

    technique: str
    unit: str
    """What losses are an average over: ``byte``, ``token``, ``word`` or ``document``."""
    num_seeds: int
    held: float
    file: float
    resident_bytes: int
    baseline_resident_bytes: int
    exact_file: bool
    perplexity: float
    """Of the mean loss."""
    loss_gain: Spread
    """Nats more than the untouched model's."""
    control_gain: Spread | None
    """The same of the control: the untouched model trained alike, or the student that nobody taught."""
    time: Spread
    bytes_per_unit: float | None
    """Of the held-out text; None where it was not counted."""
    agreement: Spread
    judge: str
    """``BLEU``, 0 to 100, of a model that translates; of all others ``accuracy``, the share of targets that the largest logit names."""
    judged: Spread
    baseline_judged: float
    conversion_peak: float
    """Of the bytes that the untouched model holds."""
    conversion_seconds: float

    @property
    def loss_gain_per_byte(self) -> float | None:
        """Nats more than the untouched model's, per byte of the text; None where its bytes were not counted."""
        return None if self.bytes_per_unit is None else self.loss_gain.mean / self.bytes_per_unit

    @classmethod
    def of(cls, results: Sequence[Result]) -> Self:
        """Return the row of an experiment's results, one a seed."""
        first = results[0]
        controls = [loss for result in results for stage in result.stages if (loss := stage.extra.get("control_loss")) is not None]
        before = first.baseline_quality
        return cls(
            technique=first.experiment.technique,
            unit=first.unit,
            num_seeds=len(results),
            held=first.ratio("held_bytes"),
            file=statistics.fmean(result.ratio("file_bytes") for result in results),
            resident_bytes=first.size.resident_bytes,
            baseline_resident_bytes=first.baseline_size.resident_bytes,
            exact_file=all(result.exact_file for result in results),
            perplexity=perplexity(statistics.fmean(result.quality.loss for result in results)),
            loss_gain=Spread.of([loss_gain(result) for result in results]),
            control_gain=Spread.of([loss - before.loss for loss in controls]) if controls else None,
            time=Spread.of([result.seconds / result.baseline_seconds for result in results]),
            bytes_per_unit=first.bytes_per_unit,
            agreement=Spread.of([result.agreement for result in results]),
            judge="accuracy" if before.bleu is None else "BLEU",
            judged=Spread.of([_judged(result.quality) for result in results]),
            baseline_judged=_judged(before),
            conversion_peak=first.conversion_peak_bytes / first.baseline_size.held_bytes,
            conversion_seconds=statistics.median(result.conversion_seconds for result in results),
        )


def _judged(quality: Quality) -> float:
    return quality.accuracy if quality.bleu is None else quality.bleu

"""Results that nobody measured, to test what is made of results."""

from __future__ import annotations

from typing import Any

from profiler.compression.experiment import Experiment
from profiler.compression.result import Quality, Result, Size, StageFacts


def result(
    *stages: str,
    model: str = "lab",
    held: int = 500,
    file: int = 600,
    loss: float = 1.4,
    accuracy: float = 0.5,
    bleu: float | None = None,
    seconds: float = 1.0,
    **extra: float,
) -> Result:
    """Return a result beside a baseline of 1,000 bytes, a loss of 1.4, an accuracy of 0.5, a BLEU of 80 where it has one, and a second."""
    experiment = Experiment.of(model, stages)
    facts = StageFacts(
        stage=stages[-1] if stages else "none",
        held_bytes=held,
        file_bytes=file,
        loss=loss,
        conversion_peak_bytes=0,
        conversion_seconds=0.0,
        extra=dict[str, Any](extra),
    )
    return Result(
        experiment=experiment,
        unit="byte",
        size=Size(held_bytes=held, resident_bytes=held, file_bytes=file),
        baseline_size=Size(held_bytes=1000, resident_bytes=1000, file_bytes=1000),
        quality=Quality(loss=loss, accuracy=accuracy, bleu=bleu),
        baseline_quality=Quality(loss=1.4, accuracy=0.5, bleu=None if bleu is None else 80.0),
        agreement=1.0,
        divergence=0.0,
        seconds=seconds,
        baseline_seconds=1.0,
        seconds_spread=(0.9 * seconds, 1.2 * seconds),
        baseline_seconds_spread=(0.9, 1.2),
        conversion_peak_bytes=0,
        conversion_seconds=0.0,
        stages=(facts,),
        exact_file=True,
        notes=("a note",),
        created=1.0,
    )

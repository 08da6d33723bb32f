"""What users type for a target -> shares of the untouched model, by its bytes and its time. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.compression import lab
from profiler.compression.result import Result
from profiler.compression.target import Goal
from profiler.errors import SpecError
from profiler.units import format_bytes, parse_bytes, parse_duration_us, read_share

_FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The untouched model, as far as it is known."""

    num_bytes: int
    """What is to be small: held, or in the file."""
    seconds: float | None
    """Of a forward pass; None before a first measurement."""

    @classmethod
    def of(cls, model: str, goal: Goal, results: Sequence[Result]) -> Baseline:
        """Return a model's baseline: that of its newest result, before one its parameters in float32.

        Args:
            model: a name of the lab's models.
            goal: which bytes count.
            results: of this model, newest first.
        """
        if not results:
            return cls(num_bytes=_FLOAT32_BYTES * lab.find(model).shape.num_parameters, seconds=None)
        return cls(num_bytes=getattr(results[0].baseline_size, goal.value), seconds=results[0].baseline_seconds)

    def bytes_share(self, text: str) -> float:
        """Return the share of the bytes that ``0.3``, ``30%`` or ``2 MiB`` names.

        Raises:
            SpecError: it is none of these, or more than the untouched model has.
        """
        share = read_share(text)
        if share is not None:
            return share
        try:
            num_bytes = parse_bytes(text)
        except SpecError:
            raise SpecError(f"Bytes: {text[:40]!r} is neither a share nor a size. Write one such as 0.3, 30% or 2 MiB.") from None
        if not 0 < num_bytes <= self.num_bytes:
            raise SpecError(
                f"Bytes: {text[:40]!r} is not possible. Use more than 0 and at most the untouched {format_bytes(self.num_bytes)}."
            )
        return num_bytes / self.num_bytes

    def time_share(self, text: str) -> float:
        """Return the share of a forward pass's time that ``0.5``, ``50%`` or ``50 ms`` names.

        Raises:
            SpecError: it is none of these, or a time while the untouched model's is not known.
        """
        share = read_share(text)
        if share is not None:
            return share
        try:
            seconds = parse_duration_us(text) / 1e6
        except SpecError:
            raise SpecError(f"Time: {text[:40]!r} is neither a share nor a time. Write one such as 0.5, 50% or 50 ms.") from None
        if not self.seconds:
            raise SpecError(
                f"Time: {text[:40]!r} needs the untouched model's time. Measure one technique first, or write a share such as 0.5."
            )
        return seconds / self.seconds

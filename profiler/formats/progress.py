"""How far a part of the work is -> how far all of it is, as those who wait are told."""

from __future__ import annotations

from collections.abc import Callable


def part_of(progress: Callable[[float], None] | None, first: float, last: float) -> Callable[[float], None] | None:
    """Return what is told how far one part is, which is the work between the shares ``first`` and ``last`` of all."""
    if progress is None:
        return None
    return lambda share: progress(first + share * (last - first))

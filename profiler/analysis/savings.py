"""Footprints of runs that differ in toggles -> what each toggle saved: a waterfall with exact sums, interactions, and who dominates whom.

Everything is a difference of two peaks, so sums telescope: the steps of a waterfall add up to baseline minus all together, to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from profiler.analysis.footprint import Footprint
from profiler.recording import Category


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What one change of a run saved at the peak."""

    toggle: str
    before: Footprint
    after: Footprint

    @property
    def saved_bytes(self) -> int:
        """Peak before minus peak after; negative where the change costs memory."""
        return self.before.peak_bytes - self.after.peak_bytes

    @property
    def saved_by_category(self) -> dict[Category, int]:
        """The same by category, largest change first; the values sum to `saved_bytes`."""
        return category_differences(self.before.peak.categories, self.after.peak.categories)


def category_differences(before: Mapping[Category, int], after: Mapping[Category, int]) -> dict[Category, int]:
    """Return before minus after for each category that differs, largest change first."""
    differences = {category: before.get(category, 0) - after.get(category, 0) for category in Category}
    return dict(sorted(((key, value) for key, value in differences.items() if value), key=lambda item: -abs(item[1])))


def waterfall(baseline: Footprint, steps: Sequence[tuple[str, Footprint]]) -> tuple[Saving, ...]:
    """Return what each toggle saved when it was switched on after those before it.

    Args:
        baseline: nothing is on.
        steps: toggles in order, each with the footprint of the run with it and all before it.
    """
    footprints = [baseline, *(footprint for _, footprint in steps)]
    found = tuple(Saving(toggle=toggle, before=before, after=after) for (toggle, after), before in zip(steps, footprints[:-1], strict=True))
    assert sum(step.saved_bytes for step in found) == baseline.peak_bytes - footprints[-1].peak_bytes, "a waterfall must add up"
    return found


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """What one toggle saves by itself, and what it saves when all others are on."""

    toggle: str
    alone_bytes: int | None
    """Baseline minus the run with this toggle alone; None where it cannot run alone."""
    last_bytes: int | None
    """The run with all others minus the run with all; None where the others cannot run without it."""

    @property
    def kind(self) -> str:
        """``overlap`` where others already save part of it, ``synergy`` where it saves more beside them, else ``independent``."""
        if self.alone_bytes is None or self.last_bytes is None or self.alone_bytes == self.last_bytes:
            return "independent" if self.alone_bytes is not None and self.last_bytes is not None else "unknown"
        return "overlap" if self.last_bytes < self.alone_bytes else "synergy"


def interactions(
    baseline: Footprint,
    together: Footprint,
    alone: Mapping[str, Footprint | None],
    without: Mapping[str, Footprint | None],
) -> tuple[Interaction, ...]:
    """Return, for each toggle, what it saves first and what it saves last.

    Args:
        baseline: nothing is on.
        together: all are on.
        alone: for each toggle, the run in which only it is on.
        without: for each toggle, the run in which only it is off.
    """
    found = []
    for toggle, footprint in alone.items():
        other = without.get(toggle)
        found.append(
            Interaction(
                toggle=toggle,
                alone_bytes=None if footprint is None else baseline.peak_bytes - footprint.peak_bytes,
                last_bytes=None if other is None else other.peak_bytes - together.peak_bytes,
            )
        )
    return tuple(found)


def dominated(points: Mapping[str, Sequence[float | None]]) -> frozenset[str]:
    """Return the names of points that another one beats: nowhere worse, somewhere better, where less is better.

    A number that is not known counts for neither; points are compared in what both know, and one that knows less dominates nobody.
    """
    return frozenset(
        name for name, point in points.items() if any(_dominates(other, point) for rival, other in points.items() if rival != name)
    )


def _dominates(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    pairs = list(zip(one, other, strict=True))
    if any(mine is None and theirs is not None for mine, theirs in pairs):
        return False
    known = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs is not None]
    return all(mine <= theirs for mine, theirs in known) and any(mine < theirs for mine, theirs in known)

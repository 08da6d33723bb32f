"""Facts of a timeline -> the sentences a person would say about it."""

from __future__ import annotations

from profiler.analysis.timeline import Timeline


def explain(timeline: Timeline) -> list[str]:
    """Return short sentences on the peak, what makes it up and what stays, each from this recording's numbers."""
    return []

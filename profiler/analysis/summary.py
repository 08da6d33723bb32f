"""A recording -> the facts that a list, a metric row or ``show --json`` prints."""

from __future__ import annotations

from typing import Any

import numpy as np

from profiler.analysis.blocks import Lane
from profiler.analysis.segment_rows import peak_reserved_bytes
from profiler.analysis.timeline import Timeline
from profiler.recording import Category, Recording

_WEIGHTS = (Category.PARAMETER, Category.BUFFER)


def summarize(recording: Recording, timeline: Timeline | None = None) -> dict[str, Any]:
    """Return plain data about a recording: what it is, its peak, and what was there at the peak.

    Keys: id, title, provenance, engine, created, complete, num_events, lane, lanes, peak_by_lane (bytes by name: a GPU's and the
    host's are apart), peak_allocated_bytes, peak_at (step, phase, event, time_us; null without events), peak_reserved_bytes (of all steps;
    null where no allocator's segments were recorded), categories_at_peak (bytes by category name; they sum to the peak), steps (numbers
    of those recorded), warmup_steps, weights_bytes
    (parameters and buffers at the peak), states_bytes (allocated after the warm-up minus weights: what the optimizer keeps, and gradients
    where they outlive a step; null where nothing was trained), final_allocated_bytes, duration_us, overhead, not_included (what a
    simulation leaves out), warnings, versions, device, host.

    Args:
        recording: what to read.
        timeline: its timeline, where it was made already; else that of the default lane.
    """
    timeline = timeline or Timeline.of(recording)
    metadata = recording.metadata
    categories = timeline.categories_at(timeline.peak_event) if timeline.num_events else {}
    assert sum(categories.values()) == timeline.peak_bytes, "categories at the peak must sum to the peak"
    weights_bytes = sum(categories.get(category, 0) for category in _WEIGHTS)
    return {
        "id": metadata.id,
        "title": metadata.title,
        "provenance": str(metadata.provenance),
        "engine": metadata.engine,
        "created": metadata.created,
        "complete": metadata.complete,
        "num_events": timeline.num_events,
        "lane": timeline.lane.label,
        "lanes": [lane.label for lane in timeline.blocks.lanes()],
        "peak_by_lane": {lane.label: _peak_bytes(recording, timeline, lane) for lane in timeline.blocks.lanes()},
        "peak_allocated_bytes": timeline.peak_bytes,
        "peak_at": _peak_at(timeline),
        "peak_reserved_bytes": peak_reserved_bytes(recording, timeline.lane),
        "categories_at_peak": {category.name: num_bytes for category, num_bytes in categories.items()},
        "steps": [int(step) for step in np.unique(timeline.blocks.event_step) if step >= 0],
        "warmup_steps": metadata.warmup_steps,
        "weights_bytes": weights_bytes,
        "states_bytes": _states_bytes(timeline, weights_bytes),
        "final_allocated_bytes": int(timeline.total[-1]) if timeline.num_events else 0,
        "duration_us": float(timeline.blocks.event_us[-1] - timeline.blocks.event_us[0]) if timeline.num_events else 0.0,
        "overhead": metadata.overhead,
        "not_included": metadata.facts.get("not_included", []),
        "warnings": _warnings(recording, timeline),
        "versions": metadata.versions,
        "device": metadata.device,
        "host": metadata.host,
    }


def _peak_bytes(recording: Recording, timeline: Timeline, lane: Lane) -> int:
    return timeline.peak_bytes if lane == timeline.lane else Timeline.of(recording, timeline.blocks, lane).peak_bytes


def _peak_at(timeline: Timeline) -> dict[str, Any] | None:
    if not timeline.num_events:
        return None
    peak = timeline.at(timeline.peak_event)
    return {"step": peak.step, "phase": str(peak.phase), "event": peak.event, "time_us": peak.time_us}


def _states_bytes(timeline: Timeline, weights_bytes: int) -> int | None:
    """Return allocated bytes right before the first step that counts, minus weights; null where nothing was trained."""
    trained = np.isin(timeline.blocks.category[timeline.members], _codes(Category.GRADIENT, Category.OPTIMIZER_STATE)).any()
    counted = timeline.blocks.event_step >= max(timeline.metadata.warmup_steps, 1)
    if not trained or not counted.any():
        return None
    before = int(np.argmax(counted)) - 1
    return int(timeline.total[before]) - weights_bytes if before >= 0 else None


def _codes(*categories: Category) -> list[int]:
    members = list(Category)
    return [members.index(category) for category in categories]


def _warnings(recording: Recording, timeline: Timeline) -> list[str]:
    warnings = list(recording.metadata.warnings)
    if timeline.blocks.num_unmatched_frees:
        warnings.append(
            f"{timeline.blocks.num_unmatched_frees:,} blocks were freed whose birth is not in the recording; totals leave them out."
        )
    return warnings

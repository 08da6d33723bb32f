"""Facts of a timeline -> the sentences a person would say about it.

Every sentence is made from this recording's numbers and left out where they do not bear it.
"""

from __future__ import annotations

import numpy as np

from profiler.analysis.categories import CATEGORY_CODES
from profiler.analysis.columns import Array
from profiler.analysis.timeline import Instant, Timeline
from profiler.recording import Category, Phase
from profiler.units import format_bytes

_SHARE_WORTH_NAMING = 0.05
_MAX_PARTS = 3
_GROWTH_WORTH_NAMING = 0.005
_UNKNOWN_WORTH_NAMING = 0.01
_EDGE = 0.1


def explain(timeline: Timeline) -> list[str]:
    """Return short sentences on the peak, what makes it up, what stays, what comes next, and what grows."""
    if not timeline.peak_bytes:
        return []
    peak = timeline.at(timeline.peak_event)
    counted = timeline.counted_events
    sentences = [
        _peak_sentence(timeline, peak),
        _largest_block_sentence(timeline, peak),
        _floor_sentence(timeline, counted),
        _next_phase_sentence(timeline, peak),
        _growth_sentence(timeline, counted),
        _unknown_sentence(timeline, peak),
    ]
    return [sentence for sentence in sentences if sentence]


def _peak_sentence(timeline: Timeline, peak: Instant) -> str:
    categories = timeline.categories_at(peak.event)
    ranked = sorted(categories.items(), key=lambda item: -item[1])
    parts = [
        f"{100 * num_bytes / peak.allocated_bytes:.0f} % {in_sentence(category)}"
        for category, num_bytes in ranked[:_MAX_PARTS]
        if num_bytes >= _SHARE_WORTH_NAMING * peak.allocated_bytes
    ]
    made_of = f": {joined(parts)}" if parts else ""
    return f"The peak, {format_bytes(peak.allocated_bytes)}, is {_place(timeline, peak)}{made_of}."


def _place(timeline: Timeline, peak: Instant) -> str:
    """Return where an instant is, such as ``in step 2, at the end of forward``."""
    step = f"in step {peak.step}" if peak.step >= 0 else "before the first step"
    if peak.phase is Phase.OTHER:
        return step
    name = phase_in_sentence(peak.phase)
    inside = [p for p in timeline.phases if p.name == peak.phase and p.start_us <= peak.time_us <= p.end_us]
    if not inside or inside[-1].end_us <= inside[-1].start_us:
        return f"{step}, in {name}"
    share = (peak.time_us - inside[-1].start_us) / (inside[-1].end_us - inside[-1].start_us)
    where = "at the start of" if share < _EDGE else "at the end of" if share > 1 - _EDGE else "in"
    return f"{step}, {where} {name}"


def _largest_block_sentence(timeline: Timeline, peak: Instant) -> str:
    blocks, alive = timeline.blocks, timeline.alive(peak.event)
    row = int(alive[np.argmax(blocks.bytes[alive])])
    size = int(blocks.bytes[row])
    if size < _SHARE_WORTH_NAMING * peak.allocated_bytes:
        return ""
    category = list(Category)[int(blocks.category[row])]
    owner = blocks.module.text(row) or blocks.tensor.text(row) or blocks.operator.text(row)
    shape = " ".join(text for text in (blocks.shape.text(row), blocks.dtype.text(row)) if text)
    of_owner = f" of {owner}" if owner else ""
    details = f" ({shape})" if shape else ""
    return f"The largest block then is {format_bytes(size)} of {in_sentence(category)}{of_owner}{details}."


def _floor_sentence(timeline: Timeline, counted: Array) -> str:
    """Say what is never freed in the events that count: before them a run may hold less."""
    floor = int(timeline.total[counted].min())
    changing = timeline.peak_bytes - floor
    if not floor or not changing:
        return ""
    share = 100 * changing / timeline.peak_bytes
    when = "" if len(counted) == timeline.num_events else " after the warm-up" if timeline.metadata.warmup_steps else " of the steps"
    return (
        f"{format_bytes(floor)} is there at every moment{when}; the other {format_bytes(changing)} ({share:.0f} % of the peak)"
        " comes and goes."
    )


def _next_phase_sentence(timeline: Timeline, peak: Instant) -> str:
    """Say how far below the peak the next highest phase is: no saving in the peak's phase alone goes below that."""
    events = timeline.phase_peak_events
    others = {phase: int(timeline.total[event]) for phase, event in events.items() if phase not in (peak.phase, Phase.OTHER)}
    if peak.phase is Phase.OTHER or not others:
        return ""
    name, reached = max(others.items(), key=lambda item: item[1])
    gap = timeline.peak_bytes - reached
    return (
        f"{phase_in_sentence(name).capitalize()} reaches {format_bytes(reached)}, {format_bytes(gap)} below the peak: "
        f"saving more than that in {phase_in_sentence(peak.phase)} alone moves the peak there."
    )


def _growth_sentence(timeline: Timeline, counted: Array) -> str:
    """Say by how much the level at the end of each step grows, where it does at every step."""
    step = timeline.blocks.event_step[counted]
    last = counted[np.flatnonzero(np.append(step[1:] != step[:-1], True))]
    levels = timeline.total[last]
    growth = np.diff(levels)
    if len(levels) < 3 or (growth <= 0).any() or growth.sum() < _GROWTH_WORTH_NAMING * timeline.peak_bytes:
        return ""
    mean = format_bytes(float(growth.mean()))
    return f"What is left at the end of a step grows by {mean} each step, over {len(levels)} steps: something is kept."


def _unknown_sentence(timeline: Timeline, peak: Instant) -> str:
    blocks, alive = timeline.blocks, timeline.alive(peak.event)
    unknown = int(blocks.bytes[alive][blocks.category[alive] == CATEGORY_CODES[Category.UNKNOWN]].sum())
    if unknown < _UNKNOWN_WORTH_NAMING * peak.allocated_bytes:
        return ""
    return f"{format_bytes(unknown)} of the peak ({100 * unknown / peak.allocated_bytes:.0f} %) could not be attributed."


def phase_in_sentence(phase: Phase) -> str:
    """Return a phase as a sentence says it, such as ``the optimizer step``."""
    return {Phase.OPTIMIZER: "the optimizer step", Phase.ZERO_GRAD: "zero_grad", Phase.DATA: "data loading"}.get(phase, str(phase))


_PLURALS = {
    Category.PARAMETER: "parameters",
    Category.MASTER_PARAMETER: "master parameters",
    Category.BUFFER: "buffers",
    Category.GRADIENT: "gradients",
    Category.ACTIVATION: "activations",
    Category.ACTIVATION_GRADIENT: "activation gradients",
    Category.INPUT: "inputs",
    Category.KV_CACHE: "KV cache",
    Category.TEMPORARY: "temporaries",
    Category.OPTIMIZER_TEMPORARY: "optimizer temporaries",
}


def in_sentence(category: Category) -> str:
    """Return what a category holds as a sentence says it, such as ``activations``."""
    return _PLURALS.get(category, category.label.lower())


def joined(parts: list[str]) -> str:
    """Return ``a, b and c``."""
    return ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else parts[0]

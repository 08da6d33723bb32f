"""A recording's summary -> the four numbers at the head of Timeline."""

from __future__ import annotations

from pages.shared import components, replays, session
from profiler.analysis.blocks import Lane
from profiler.analysis.samples import memory_series
from profiler.recording import Metadata
from profiler.units import exact_bytes, format_bytes


def headline(recording_id: str, lane: Lane | None) -> list[components.Metric]:
    """Return the peak, what it is made of, what stays between steps, and what the system saw; four at most."""
    summary = session.summary(recording_id, lane)
    peak = summary["peak_allocated_bytes"]
    at = summary["peak_at"]
    where = f"step {at['step']}, {at['phase']}" if at and at["step"] >= 0 else "before the first step"
    row = [
        components.Metric("Peak allocated", format_bytes(peak), f"{exact_bytes(peak)} held by live tensors, the most at any event.", where)
    ]
    row += _largest(summary["categories_at_peak"], peak)
    row += _reserved(recording_id, lane)
    row.append(_states(summary))
    row += _seen_by_system(recording_id)
    return row[:4]


def overhead(metadata: Metadata) -> str:
    """Return what recording cost as a sentence; empty where it is not known."""
    run = metadata.overhead.get("run_cpu_seconds")
    spent = sum(seconds for name, seconds in metadata.overhead.items() if name.endswith("_cpu_seconds") and name != "run_cpu_seconds")
    if not run or not spent:
        return ""
    return f"Recording took {spent:.2f} s of processor time beside the {run:.2f} s of the run."


def _largest(categories: dict[str, int], peak: int) -> list[components.Metric]:
    if not categories:
        return []
    name = max(categories, key=categories.__getitem__)
    share = f"{components.category_label(name)}, {100 * categories[name] / peak:.0f} %"
    return [components.Metric("Largest at the peak", format_bytes(categories[name]), exact_bytes(categories[name]), share)]


def _states(summary: dict[str, object]) -> components.Metric:
    states, weights = summary["states_bytes"], summary["weights_bytes"]
    help_text = "Parameters and buffers, and what the optimizer and gradients add to them between steps."
    if isinstance(states, int) and isinstance(weights, int):
        return components.Metric("Weights and states", format_bytes(weights + states), help_text, f"states {format_bytes(states)}")
    if not isinstance(weights, int) or not weights:
        return components.Metric("Weights", "not told", "This recording does not say which blocks are parameters; they are among Unknown.")
    return components.Metric("Weights", format_bytes(weights), "Parameters and buffers.")


def _reserved(recording_id: str, lane: Lane | None) -> list[components.Metric]:
    recorded = replays.recorded(recording_id, lane)
    if recorded is None:
        return []
    text = f"{exact_bytes(recorded.peak_bytes)} taken from the card by the allocator at most; then so much of it held no tensor."
    external = float(recorded.external[recorded.fullest_row])
    return [components.Metric("Peak reserved", format_bytes(recorded.peak_bytes), text, f"{100 * external:.1f} % fragmented or cached")]


def _seen_by_system(recording_id: str) -> list[components.Metric]:
    found = memory_series(session.recording(recording_id))
    if not found:
        return []
    series = found[0]
    text = "The most that the system saw in use while the run was recorded; includes memory outside of tensors."
    return [components.Metric(series.label, format_bytes(float(series.values.max())), text, "peak")]

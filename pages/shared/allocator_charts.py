"""Reserved over allocated memory, the default beside the chosen setting; what was recorded is laid over it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.shared import components, replays, session
from pages.shared.allocator_editor import Choice
from profiler.analysis.allocator_settings import DEFAULT, label_of
from profiler.analysis.blocks import Lane
from profiler.analysis.reserved import ReservedSeries
from profiler.analysis.timeline import Axis, Timeline
from profiler.figures.reserved import reserved_figure
from profiler.units import format_bytes

_AXES: dict[Axis, str] = {"event": "Events", "time": "Time"}


def side_by_side(recording_id: str, lane: Lane | None, choice: Choice, timeline: Timeline) -> None:
    """Draw both charts with one scale."""
    axis = axis_choice()
    both = [simulated(recording_id, lane, setting, choice) for setting in (DEFAULT, choice.shown)]
    recorded = replays.recorded(recording_id, lane)
    top = max([one.peak_bytes for one in both] + ([recorded.peak_bytes] if recorded else []))
    for place, (column, series) in enumerate(zip(st.columns(2, gap="medium"), both, strict=True)):
        with column:
            st.markdown(_head(series))
            _draw(series, place, axis, choice, recorded if place == 0 else None, top, instant_of(timeline, both[-1]))
    limits = replays.limits(recording_id, lane, on_a_card=choice.capacity_bytes is not None)
    st.caption(" ".join([*_caption(timeline, both, choice), *limits]))


def simulated(recording_id: str, lane: Lane | None, setting: str, choice: Choice) -> ReservedSeries:
    """Return what one of the choice's settings would have reserved."""
    return replays.series(recording_id, lane, setting, choice.torch_version, choice.capacity_bytes)


def axis_choice() -> Axis:
    """Draw the choice of the x axis."""
    options = list(_AXES)
    return st.segmented_control("Axis", options, format_func=_AXES.__getitem__, required=True, **session.linked("axis", options)) or "event"


def instant_of(timeline: Timeline, series: ReservedSeries) -> int:
    """Return the chosen event: what the address says, else where the series is at its peak."""
    text = session.chosen("at") or ""
    last = timeline.num_events - 1
    return min(int(text) if text.isdecimal() else series.fullest_event, last)


def _draw(
    series: ReservedSeries, place: int, axis: Axis, choice: Choice, recorded: ReservedSeries | None, top_bytes: int, cursor: int
) -> None:
    rows = series.pick_rows()
    key = f"reserved_{place}"
    figure = reserved_figure(
        series,
        rows,
        theme=session.theme(),
        axis=axis,
        recorded=recorded,
        capacity_bytes=choice.capacity_bytes,
        top_bytes=top_bytes,
        cursor=cursor,
    )

    def clicked() -> None:
        points: list[dict[str, Any]] = session.recall(key, {}).get("selection", {}).get("points", [])
        if points and points[0]["point_index"] < len(rows):
            session.choose(at=str(max(int(series.event[rows[points[0]["point_index"]]]), 0)))

    alt = f"Reserved over allocated memory with {label_of(series.setting)} settings; Chart data has the numbers."
    components.chart(figure, key=key, alt=alt, on_click=clicked)


def _head(series: ReservedSeries) -> str:
    name = f"`{series.setting}`" if series.setting else "Default settings"
    if series.failure is not None:
        return f"**{name}**: out of memory with {format_bytes(series.peak_bytes)} reserved"
    external = float(series.external[series.peak_row]) if len(series) else 0.0
    return f"**{name}**: peak reserved {format_bytes(series.peak_bytes)}, {100 * external:.1f} % of it fragmented or cached"


def _caption(timeline: Timeline, both: list[ReservedSeries], choice: Choice) -> list[str]:
    """Return what was simulated from what, and what was reduced."""
    metadata = timeline.metadata
    version = "{}.{}".format(*choice.torch_version)
    num_points = max(series.num_points for series in both)
    said = [
        f"Simulated: the requests of {timeline.lane.label}, {metadata.provenance.value} by {metadata.engine}, "
        f"replayed through torch {version}'s CUDA caching allocator."
    ]
    if num_points > max(len(series.pick_rows()) for series in both):
        said.append(f"Drawn are {len(both[0].pick_rows()):,} of {num_points:,} steps, peaks exact.")
    return said

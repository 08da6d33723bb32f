"""What the allocator held at an instant, segment by segment, and what it asked of the driver; each of a chosen run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from pages.shared import allocator_charts, components, replays, segments, session
from pages.shared.allocator_editor import Choice
from profiler.analysis.allocator_settings import DEFAULT
from profiler.analysis.blocks import Lane
from profiler.analysis.reserved import ReservedSeries
from profiler.analysis.segment_map import SegmentMap
from profiler.analysis.timeline import Axis, Timeline
from profiler.figures.reserved import fragmentation_figure
from profiler.figures.segments import segments_table
from profiler.recording import Provenance

_HEIGHT = 640
_MAP = "Map"
"""It is as high as it needs: what it leaves out is said under it."""


@dataclass(frozen=True)
class _Shown:
    """What the details are about."""

    recording_id: str
    lane: Lane | None
    choice: Choice
    timeline: Timeline
    series: ReservedSeries
    event: int

    def state(self) -> SegmentMap:
        """Return the segments at the instant."""
        if self.series.provenance is not Provenance.SIMULATED:
            return replays.recorded_map(self.recording_id, self.lane, self.event)
        version, capacity = self.choice.torch_version, self.choice.capacity_bytes
        return replays.simulated_map(self.recording_id, self.lane, self.series.setting, version, capacity, self.event)


def panel(recording_id: str, lane: Lane | None, choice: Choice, timeline: Timeline) -> None:
    """Draw the choice of run and instant, and the chosen details in a place that does not move."""
    recorded = replays.recorded(recording_id, lane)
    runs = {choice.shown: allocator_charts.simulated(recording_id, lane, choice.shown, choice)}
    runs["default"] = allocator_charts.simulated(recording_id, lane, DEFAULT, choice)
    if recorded is not None:
        runs = {"as recorded": recorded} | runs
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.segmented_control("Run", list(runs), required=True, **session.linked("run_shown", list(runs)))
        series, last = runs[str(name)], timeline.num_events - 1
        if last > 0:
            st.slider("Instant (event)", **session.linked_number("at", min(series.fullest_event, last), 0, last))
        st.button("Peak of reserved", on_click=lambda: session.choose(at=None), key="jump_to_reserved")
    shown = _Shown(recording_id, lane, choice, timeline, series, allocator_charts.instant_of(timeline, series))
    chosen = st.segmented_control("Details", list(_DETAILS), required=True, **session.linked("details", list(_DETAILS)))
    with st.container(height="content" if chosen == _MAP else _HEIGHT, border=False, key="allocator_details"):
        _DETAILS[str(chosen)](shown)


def _map(shown: _Shown) -> None:
    segments.draw_map(shown.state(), shown.timeline.blocks)


def _segments(shown: _Shown) -> None:
    components.table(segments_table(shown.state()), key="segment_table", alt="The segments at the instant", height=_HEIGHT - 60)


def _fragmentation(shown: _Shown) -> None:
    axis: Axis = "time" if session.chosen("axis") == "time" else "event"
    figure = fragmentation_figure([shown.series], theme=session.theme(), axis=axis)
    components.chart(figure, key="fragmentation", alt="External fragmentation over the run; Chart data has the numbers.")
    st.caption(f"The share of reserved memory that no live tensor's block holds, {shown.series.provenance.value}.")


def _events(shown: _Shown) -> None:
    segments.draw_events(shown.series, _HEIGHT - 100)


def _chart_data(shown: _Shown) -> None:
    frame = shown.series.table(shown.series.pick_rows())
    components.table(frame, key="reserved_data", alt="Reserved and allocated bytes at each drawn event", height=_HEIGHT - 60)


_DETAILS: dict[str, Callable[[_Shown], None]] = {
    _MAP: _map,
    "Segments": _segments,
    "Fragmentation": _fragmentation,
    "Allocator events": _events,
    "Chart data": _chart_data,
}

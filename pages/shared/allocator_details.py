"""What the allocator held at an instant, segment by segment, and what it asked of the driver; each of a chosen run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from pages.shared import allocator_charts, components, replays, session
from pages.shared.allocator_editor import Choice
from profiler.analysis.allocator_settings import DEFAULT
from profiler.analysis.blocks import Lane
from profiler.analysis.reserved import ReservedSeries
from profiler.analysis.segment_map import SegmentMap, Use
from profiler.analysis.segment_view import Order, PoolName, view_segments
from profiler.analysis.timeline import Axis, Timeline
from profiler.figures.reserved import fragmentation_figure
from profiler.figures.segments import segments_figure, segments_table
from profiler.recording import Provenance
from profiler.units import format_bytes

_HEIGHT = 640
_MAX_ROWS = 5_000
_POOLS: dict[PoolName, str] = {"large": "Large (above 1 MiB)", "small": "Small (up to 1 MiB)"}
_ORDERS: dict[Order, str] = {"size": "Largest first", "free": "Most free first"}


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
    with st.container(height=_HEIGHT, border=False, key="allocator_details"):
        _DETAILS[str(chosen)](shown)


def _map(shown: _Shown) -> None:
    state = shown.state()
    with st.container(horizontal=True):
        pool: PoolName = _choice("Pool", "pool", _POOLS)
        order: Order = _choice("Order", "order", _ORDERS)
    view = view_segments(state, pool, order)
    free, waiting = state.bytes_of(Use.FREE), state.bytes_of(Use.WAITING)
    st.markdown(
        f"**{format_bytes(state.reserved_bytes)} reserved** after event {shown.event:,}: {format_bytes(state.bytes_of(Use.ALLOCATED))} "
        f"allocated, {format_bytes(waiting)} waiting for a stream, {format_bytes(free)} free."
    )
    components.chart(
        segments_figure(view, shown.timeline.blocks, theme=session.theme()),
        key="segments",
        alt="Each segment as a row of blocks; the table under Segments has the numbers.",
    )
    st.caption(_about_map(state, view.statement))


def _about_map(state: SegmentMap, statement: str) -> str:
    text = f"{state.provenance.value.capitalize()}; a row is a segment, its width its bytes; drawn are {statement}."
    if state.provenance is Provenance.SIMULATED:
        text += (
            " New segments' addresses are made up in rising order; a driver's other order matters only between free blocks of equal size."
        )
    if state.failure is not None:
        text += " Memory ran out before this instant; this is how things stood then."
    return text


def _segments(shown: _Shown) -> None:
    components.table(segments_table(shown.state()), key="segment_table", alt="The segments at the instant", height=_HEIGHT - 60)


def _fragmentation(shown: _Shown) -> None:
    axis: Axis = "time" if session.chosen("axis") == "time" else "event"
    figure = fragmentation_figure([shown.series], theme=session.theme(), axis=axis)
    components.chart(figure, key="fragmentation", alt="External fragmentation over the run; Chart data has the numbers.")
    st.caption(f"The share of reserved memory that no live tensor's block holds, {shown.series.provenance.value}.")


def _events(shown: _Shown) -> None:
    changes = shown.series.changes
    st.caption(f"{len(changes):,} calls to the driver, {shown.series.provenance.value}; bytes that came or went, and reserved after each.")
    frame = changes.head(_MAX_ROWS).assign(address=[hex(address) if address >= 0 else "" for address in changes["address"].head(_MAX_ROWS)])
    components.table(frame, key="allocator_events", alt="What the allocator asked of the driver", height=_HEIGHT - 100)
    if shown.series.failure is not None:
        cause = shown.series.failure.cause
        st.caption(f"Then memory ran out: {format_bytes(cause.requested_bytes)} requested, {format_bytes(cause.reserved_bytes)} reserved.")


def _chart_data(shown: _Shown) -> None:
    frame = shown.series.table(shown.series.pick_rows())
    components.table(frame, key="reserved_data", alt="Reserved and allocated bytes at each drawn event", height=_HEIGHT - 60)


def _choice(label: str, name: str, options: Mapping[Any, str]) -> Any:
    names = list(options)
    return st.segmented_control(label, names, format_func=options.__getitem__, required=True, **session.linked(name, names))


_DETAILS: dict[str, Callable[[_Shown], None]] = {
    "Map": _map,
    "Segments": _segments,
    "Fragmentation": _fragmentation,
    "Allocator events": _events,
    "Chart data": _chart_data,
}

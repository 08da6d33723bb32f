"""The main chart of Timeline: allocated memory by category, or every block; a click chooses the instant."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.shared import components, replays, session
from profiler.analysis.layout import LayoutName, has_addresses
from profiler.analysis.reserved import ReservedSeries
from profiler.analysis.samples import Series, memory_series
from profiler.analysis.timeline import Timeline
from profiler.analysis.view import view_blocks
from profiler.figures.payload import blocks_payload, canvas_source, event_of, window_of
from profiler.figures.reserved import add_fragmentation
from profiler.figures.timeline import timeline_figure
from profiler.recording import HOST, Clock

_FIGURE, _BLOCKS = "timeline_figure", "timeline_blocks"
_NOTHING = "Nothing"
_FRAGMENTATION = "Fragmentation"
_DWARFS = 2
"""A reading over so many times the peak would press the categories flat."""
_VIEWS = {"categories": "By category", "blocks": "Blocks"}
_AXES = {"time": "Time", "event": "Events"}
_TIMES = {
    Clock.MEASURED: "",
    Clock.ESTIMATED: " Times are estimated.",
    Clock.ORDER: " The axis tells the order of what happened, not how long it took.",
}
_LAYOUTS = {"stacked": "Stacked", "address": "Addresses"}
_canvas = st.components.v2.component("headroom_blocks", **vars(canvas_source()))


def main(recording_id: str, timeline: Timeline) -> None:
    """Draw the controls and the chosen chart of a recording's memory."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        view = _choice("View", "view", _VIEWS)
        axis = _choice("Axis", "axis", _AXES)
        if view == "blocks":
            layout: LayoutName = _choice("Height", "layout", _LAYOUTS) if has_addresses(timeline) else "stacked"
        else:
            recorded = replays.recorded(recording_id, timeline.lane)
            readings = _overlays(recording_id, timeline, recorded)
            over = _laid_over(timeline, readings, has_fragmentation=recorded is not None)
    if view == "blocks":
        _draw_blocks(timeline, axis, layout)
    else:
        overlays = [one for one in readings if one.label == over]
        _draw_categories(timeline, axis, overlays, recorded if over == _FRAGMENTATION else None)


def _choice(label: str, name: str, options: dict[str, str]) -> Any:
    return st.segmented_control(label, list(options), format_func=options.__getitem__, required=True, **session.linked(name, list(options)))


def _overlays(recording_id: str, timeline: Timeline, recorded: ReservedSeries | None) -> list[Series]:
    """Return what can be laid over the chart: reserved, where it was recorded, and readings of this memory and of the host."""
    read = [one for one in memory_series(session.recording(recording_id)) if one.device in (timeline.lane.device, HOST)]
    return ([recorded.overlay(timeline.lane.device)] if recorded else []) + read


def _laid_over(timeline: Timeline, readings: list[Series], *, has_fragmentation: bool) -> str:
    """Draw the choice of what lies over the chart; by default what does not dwarf it."""
    if not readings:
        return _NOTHING
    series = {one.label: one for one in readings}
    small = [label for label, one in series.items() if one.values.max() <= _DWARFS * timeline.peak_bytes]
    options = [
        *small[:1],
        _NOTHING,
        *(label for label in series if label not in small[:1]),
        *([_FRAGMENTATION] if has_fragmentation else []),
    ]
    return str(st.segmented_control("Laid over", options, required=True, **session.linked("over", options)))


def _draw_categories(timeline: Timeline, axis: Any, overlays: list[Series], fragmentation: ReservedSeries | None) -> None:
    picked = timeline.pick_rows(axis=axis)
    figure = timeline_figure(timeline, picked, axis=axis, theme=session.theme(), overlays=overlays, cursor=instant_of(timeline))
    if fragmentation is not None:
        add_fragmentation(figure, timeline, fragmentation, theme=session.theme(), axis=axis)

    def clicked() -> None:
        points = session.recall(_FIGURE, {}).get("selection", {}).get("points", [])
        if points:
            session.choose(at=str(int(picked.rows[points[0]["point_index"]])))

    alt = f"Allocated memory of {timeline.lane.label} by category over {axis}. The table under Chart data has the same numbers."
    components.chart(figure, key=_FIGURE, alt=alt, on_click=clicked)
    metadata = timeline.metadata
    st.caption(f"Allocated bytes of {timeline.lane.label}, {metadata.provenance.value} ({metadata.engine}); {picked.statement}.")


def instant_of(timeline: Timeline) -> int:
    """Return the chosen event: what the address says, else the peak."""
    text = session.chosen("at") or ""
    return min(int(text), timeline.num_events - 1) if text.isdecimal() else timeline.peak_event


def _draw_blocks(timeline: Timeline, axis: Any, layout: LayoutName) -> None:
    def picked() -> None:
        event = event_of(timeline, axis, session.recall(_BLOCKS, {}).get("pick"))
        if event is not None:
            session.choose(at=str(event))

    start, end = window_of(timeline, axis, session.recall(_BLOCKS, {}).get("view"))
    view = view_blocks(timeline, start, end, axis=axis, layout=layout)
    data = blocks_payload(timeline, view, theme=session.theme(), cursor=instant_of(timeline))
    _canvas(data=data, key=_BLOCKS, default={"view": None}, on_view_change=_nothing, on_pick_change=picked)
    times = _TIMES[timeline.metadata.clock] if axis == "time" else ""
    st.caption(f"Blocks of {timeline.lane.label}, {timeline.metadata.provenance.value}; {view.statement}.{times}")


def _nothing() -> None:
    """Do nothing: Streamlit sends a component's values only where a callback is given."""

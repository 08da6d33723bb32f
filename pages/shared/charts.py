"""The main chart of Timeline: allocated memory by category, or every block; a click chooses the instant."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import streamlit as st

from pages.shared import components, session
from profiler.analysis.layout import LayoutName, has_addresses
from profiler.analysis.samples import memory_series
from profiler.analysis.timeline import Picked, Timeline
from profiler.analysis.view import view_blocks
from profiler.figures.payload import blocks_payload, canvas_source
from profiler.figures.timeline import timeline_figure

_FIGURE, _BLOCKS = "timeline_figure", "timeline_blocks"
_VIEWS = {"categories": "By category", "blocks": "Blocks"}
_AXES = {"time": "Time", "event": "Events"}
_LAYOUTS = {"stacked": "Stacked", "address": "Addresses"}
_canvas = st.components.v2.component("headroom_blocks", **vars(canvas_source()))


def main(recording_id: str, timeline: Timeline) -> None:
    """Draw the controls and the chosen chart of a recording's memory."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        view = _choice("View", "view", _VIEWS)
        axis = _choice("Axis", "axis", _AXES)
        layouts = _LAYOUTS if has_addresses(timeline) else {"stacked": "Stacked"}
        layout: Any = _choice("Height", "layout", layouts) if view == "blocks" and len(layouts) > 1 else "stacked"
    if view == "blocks":
        _draw_blocks(timeline, axis, layout)
    else:
        _draw_categories(recording_id, timeline, axis)


def _choice(label: str, name: str, options: dict[str, str]) -> Any:
    return st.segmented_control(label, list(options), format_func=options.__getitem__, required=True, **session.linked(name, list(options)))


def _draw_categories(recording_id: str, timeline: Timeline, axis: Any) -> None:
    picked = _picked(recording_id, timeline, axis)
    cursor = instant_of(timeline)
    overlays = memory_series(session.recording(recording_id)) if axis == "time" else ()
    figure: go.Figure = timeline_figure(timeline, picked, axis=axis, theme=session.theme(), overlays=overlays, cursor=cursor)

    def clicked() -> None:
        points = session.recall(_FIGURE, {}).get("selection", {}).get("points", [])
        if points:
            session.choose(at=str(int(picked.rows[points[0]["point_index"]])))

    alt = f"Allocated memory of {timeline.lane.label} by category over {axis}. The table under Chart data has the same numbers."
    components.chart(figure, key=_FIGURE, alt=alt, on_click=clicked)
    metadata = timeline.metadata
    st.caption(f"Allocated bytes of {timeline.lane.label}, {metadata.provenance.value} by {metadata.engine}; {picked.statement}.")


def _picked(recording_id: str, timeline: Timeline, axis: Any) -> Picked:
    del recording_id
    return timeline.pick_rows(axis=axis)


def instant_of(timeline: Timeline) -> int:
    """Return the chosen event: what the address says, else the peak."""
    text = session.chosen("at") or ""
    return min(int(text), timeline.num_events - 1) if text.isdecimal() else timeline.peak_event


def _draw_blocks(timeline: Timeline, axis: Any, layout: LayoutName) -> None:
    window = session.recall(_BLOCKS, {}).get("view") or {}
    view = view_blocks(timeline, window.get("start"), window.get("end"), axis=axis, layout=layout)
    data = blocks_payload(timeline, view, theme=session.theme(), cursor=instant_of(timeline))
    result = _canvas(data=data, key=_BLOCKS, default={"view": None}, on_view_change=_nothing, on_pick_change=_nothing)
    pick = result.get("pick")
    if pick:
        session.choose(at=str(int(pick["event"])))
    st.caption(f"Blocks of {timeline.lane.label}, {timeline.metadata.provenance.value}; {view.statement}.")


def _nothing() -> None:
    """Streamlit sends a component's values only where a callback is given."""

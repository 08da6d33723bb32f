"""What is alive at the chosen instant: by category, module and tensor, as a tree, and as a table to search."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from pages.shared import charts, components, replays, segments, session
from profiler.analysis.attribution import alive_at, group_at, module_tree, top_allocations
from profiler.analysis.stack_tree import has_modules, has_stacks, stack_tree
from profiler.analysis.timeline import Timeline
from profiler.figures.composition import composition_figure, composition_table
from profiler.figures.modules import module_figure
from profiler.figures.timeline import timeline_table
from profiler.recording import Clock
from profiler.units import exact_bytes, format_bytes, format_duration_us

_HEIGHT = 400
_MAX_ROWS = 500
_WHEN = {Clock.MEASURED: " at {}", Clock.ESTIMATED: " at about {} (estimated)", Clock.ORDER: ""}
_TREES = ("Modules", "Call stacks")
_MAP = "Segment map"
"""It is as high as it needs: what it leaves out is said under it."""


def panel(recording_id: str, timeline: Timeline) -> None:
    """Draw the instant's controls, what it is made of, and the chosen details in a place that does not move."""
    event = _choose_instant(timeline)
    now = timeline.at(event)
    where = f"step {now.step}, {now.phase.value}" if now.step >= 0 else f"before the first step, {now.phase.value}"
    when = _WHEN[timeline.metadata.clock].format(format_duration_us(now.time_us))
    st.markdown(f"**{format_bytes(now.allocated_bytes)} allocated**{when}, {where}")
    st.caption(f"{exact_bytes(now.allocated_bytes)} after event {event:,} of {timeline.num_events:,}")
    categories = timeline.categories_at(event)
    composition = composition_figure(categories, theme=session.theme())
    components.chart(
        composition, key="instant_composition", alt="What is allocated at the instant, by category; the table below has the numbers."
    )
    chosen = st.segmented_control("Details", list(_DETAILS), required=True, **session.linked("details", list(_DETAILS)))
    with st.container(height="content" if chosen == _MAP else _HEIGHT + 60, border=False, key="instant_details"):
        _DETAILS[str(chosen)](timeline, event)


def _choose_instant(timeline: Timeline) -> int:
    last = timeline.num_events - 1
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if last > 0:
            st.slider("Instant (event)", **session.linked_number("at", timeline.peak_event, 0, last))
        st.button("Jump to the peak", on_click=lambda: session.choose(at=None), key="jump_to_peak")
    return charts.instant_of(timeline)


def _by_category(timeline: Timeline, event: int) -> None:
    components.table(
        composition_table(timeline.categories_at(event)), key="by_category", alt="Bytes by category at the instant", height=_HEIGHT
    )


def _by_module(timeline: Timeline, event: int) -> None:
    components.table(
        group_at(timeline, event, "module").head(_MAX_ROWS), key="by_module", alt="Bytes by module at the instant", height=_HEIGHT
    )


def _by_tensor(timeline: Timeline, event: int) -> None:
    frame = alive_at(timeline, event, limit=_MAX_ROWS)
    components.table(frame, key="by_tensor", alt="The largest blocks alive at the instant", height=_HEIGHT)


def _tree(timeline: Timeline, event: int) -> None:
    by = _TREES[0]
    if has_stacks(timeline):
        options = _TREES if has_modules(timeline) else _TREES[::-1]
        by = str(st.segmented_control("Tree of", options, required=True, **session.linked("tree", options)))
    if by == _TREES[0]:
        nodes = module_tree(timeline, event)
    else:
        nodes = stack_tree(timeline, session.recording(timeline.metadata.id).stacks, event)
        st.caption("Own code first, outermost call above; below it the library function or operator that it called.")
    figure = module_figure(nodes, theme=session.theme())
    figure.update_layout(height=_HEIGHT)
    components.chart(figure, key="module_tree", alt=f"Bytes alive at the instant as a tree of {by.lower()}; Allocations has the numbers.")


def _search(timeline: Timeline, event: int) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        query = st.text_input("Search", key="search_query", placeholder="Words of a module, operator, tensor, shape, dtype or category")
        scopes = {"now": "Alive at the instant", "all": "Whole recording"}
        scope = st.segmented_control(
            "Among", list(scopes), format_func=scopes.__getitem__, required=True, **session.linked("among", list(scopes))
        )
    found = top_allocations(timeline, query, limit=_MAX_ROWS, event=event if scope == "now" else None)
    st.caption(f"{found.num_matching:,} blocks, {format_bytes(found.matching_bytes)}; the largest {len(found.table):,} are listed.")
    components.table(found.table, key="search_table", alt="The largest blocks that match", height=_HEIGHT - 90)


def _segment_map(timeline: Timeline, event: int) -> None:
    recording_id, lane = timeline.metadata.id, timeline.lane
    if replays.recorded(recording_id, lane) is not None:
        state = replays.recorded_map(recording_id, lane, event)
    else:
        state = replays.simulated_map(recording_id, lane, *replays.in_force(recording_id, lane), None, event)
    segments.draw_map(state, timeline.blocks)


def _allocator_events(timeline: Timeline, event: int) -> None:
    del event
    recording_id, lane = timeline.metadata.id, timeline.lane
    series = replays.recorded(recording_id, lane)
    if series is None:
        series = replays.series(recording_id, lane, *replays.in_force(recording_id, lane), None)
    segments.draw_events(series, _HEIGHT - 40)


def _chart_data(timeline: Timeline, event: int) -> None:
    del event
    picked = timeline.pick_rows()
    st.caption(f"The numbers of the chart by category; {picked.statement}.")
    components.table(
        timeline_table(timeline, picked), key="chart_data", alt="Allocated bytes by category at each drawn event", height=_HEIGHT - 40
    )


_DETAILS: dict[str, Callable[[Timeline, int], None]] = {
    "By category": _by_category,
    "By module": _by_module,
    "By tensor": _by_tensor,
    "Module tree": _tree,
    "Allocations": _search,
    _MAP: _segment_map,
    "Allocator events": _allocator_events,
    "Chart data": _chart_data,
}

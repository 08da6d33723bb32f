"""A recording beside another one: what is alive in one and not in the other, to hunt leaks and regressions."""

from __future__ import annotations

import streamlit as st

from pages.shared import components, library, session
from profiler.analysis.alive_difference import AliveDifference, Side, alive_difference
from profiler.analysis.blocks import Lane
from profiler.units import format_bytes

_NONE = ""
_PEAK, _END = "peak", "end"
_MAX_ROWS = 500


def panel(recording_id: str, lane: Lane | None) -> None:
    """Draw, folded, the choice of another recording and what differs; the address carries the choice."""
    entries = {entry.id: entry for entry in session.entries() if entry.id != recording_id}
    labels = library.labels(entries.values()) | {_NONE: "None"}
    with st.expander("Against another recording", expanded=session.chosen("against") in entries):
        st.caption("For leaks, two snapshots of one run at their ends; for regressions, two runs at their peaks.")
        choice, instant = st.columns([3, 1])
        with choice:
            other = str(
                st.selectbox(
                    "The recording before",
                    [_NONE, *entries],
                    format_func=labels.__getitem__,
                    **session.linked("against", [_NONE, *entries]),
                )
            )
        with instant:
            at = str(
                st.segmented_control(
                    "Alive at", [_PEAK, _END], format_func=str.capitalize, required=True, **session.linked("alive", [_PEAK, _END])
                )
            )
        if other:
            has_lane = lane in session.blocks(other).lanes()
            sides = _side(other, lane if has_lane else None, at), _side(recording_id, lane, at)
            _draw(alive_difference(*sides), at, f"{entries[other].metadata.title} ({entries[other].metadata.provenance.value})")


def _side(recording_id: str, lane: Lane | None, at: str) -> Side:
    timeline = session.timeline(recording_id, lane)
    return Side(session.recording(recording_id), timeline, timeline.peak_event if at == _PEAK else timeline.num_events - 1)


def _draw(found: AliveDifference, at: str, before: str) -> None:
    st.markdown(
        f"**{format_bytes(found.after_bytes)}** are alive at the {at} here and **{format_bytes(found.before_bytes)}** there: {before}."
        f" {format_bytes(found.same_bytes)} are the same, {format_bytes(found.more_bytes)} more and {format_bytes(found.less_bytes)} less."
    )
    if found.table.empty:
        return
    components.table(found.table.head(_MAX_ROWS), key="against", alt="What is alive in one recording and not in the other")
    shown = f"the largest {_MAX_ROWS} of {len(found.table):,} differences" if len(found.table) > _MAX_ROWS else "all differences"
    st.caption(f"Blocks are the same where their size and the calls that made them are; {shown}, by call stack or module and size.")

"""Replays of recordings, each kept by the recording's id and the settings: what takes seconds for a million events is done once."""

from __future__ import annotations

import streamlit as st

from pages.shared import session
from profiler.allocator.config import NEWEST, AllocatorConfig
from profiler.allocator.out_of_memory import Explanation, explain_out_of_memory
from profiler.allocator.recorded import recorded as from_recording
from profiler.allocator.trace import Trace
from profiler.allocator.what_if import Trial, compare, smallest_card
from profiler.analysis import reserved, segment_map
from profiler.analysis.allocator_settings import DEFAULT, text_of
from profiler.analysis.blocks import Lane
from profiler.analysis.columns import Array
from profiler.analysis.reserved import ReservedSeries
from profiler.analysis.segment_map import SegmentMap
from profiler.errors import HeadroomError

MAX_STEPS = 3_000_000
"""More would take the server minutes; the command line's replay has no limit."""
_FEW = 8
"""What is as large as a recording: some 40 bytes an event."""
_MANY = 1_000
Version = tuple[int, int]


@st.cache_resource(max_entries=_FEW, show_spinner=False)
def trace(recording_id: str, lane: Lane | None) -> Trace:
    """Return what one lane's program asked of the allocator."""
    return reserved.lane_trace(session.recording(recording_id), session.timeline(recording_id, lane).lane)


@st.cache_resource(max_entries=_MANY, show_spinner=False)
def in_force(recording_id: str, lane: Lane | None) -> tuple[str, Version]:
    """Return the settings, as text, and the torch version that a recording was made with, as far as it says."""
    device, rank = session.timeline(recording_id, lane).lane
    try:
        config = from_recording(session.recording(recording_id), device, rank).config
    except HeadroomError:  # what cannot be rebuilt from it can still be replayed
        return DEFAULT, NEWEST
    return text_of(config), config.torch_version


@st.cache_resource(max_entries=_FEW, show_spinner=False)
def numbers(recording_id: str, lane: Lane | None) -> Array:
    """Return each block's number, by place in `Blocks`."""
    return segment_map.block_numbers(session.recording(recording_id), session.timeline(recording_id, lane))


@st.cache_resource(max_entries=_FEW, show_spinner=False)
def recorded(recording_id: str, lane: Lane | None) -> ReservedSeries | None:
    """Return what was reserved as the recording says it; None where it does not."""
    return reserved.recorded_reserved(session.recording(recording_id), session.timeline(recording_id, lane))


@st.cache_resource(max_entries=_FEW, show_spinner=False)
def series(recording_id: str, lane: Lane | None, setting: str, version: Version, capacity_bytes: int | None) -> ReservedSeries:
    """Return what would have been reserved with these settings."""
    config = AllocatorConfig.parse(setting, version)
    return reserved.simulated_reserved(session.timeline(recording_id, lane), trace(recording_id, lane), config, setting, capacity_bytes)


@st.cache_resource(max_entries=_MANY, show_spinner=False)
def trial(recording_id: str, lane: Lane | None, setting: str, version: Version, capacity_bytes: int | None) -> Trial:
    """Return the numbers of one setting on one card."""
    return compare(trace(recording_id, lane), {setting: AllocatorConfig.parse(setting, version)}, [capacity_bytes])[0]


@st.cache_resource(max_entries=_MANY, show_spinner=False)
def smallest(recording_id: str, lane: Lane | None, setting: str, version: Version) -> int:
    """Return the bytes that the allocator must at least be able to reserve; about a dozen replays."""
    return smallest_card(trace(recording_id, lane), AllocatorConfig.parse(setting, version))


@st.cache_resource(max_entries=_MANY, show_spinner=False)
def explanation(recording_id: str, lane: Lane | None, setting: str, version: Version, capacity_bytes: int) -> Explanation | None:
    """Return why memory runs out on a card; None where it does not. About two dozen replays where it does."""
    return explain_out_of_memory(trace(recording_id, lane), AllocatorConfig.parse(setting, version), capacity_bytes)


@st.cache_resource(max_entries=_FEW, show_spinner=False)
def simulated_map(
    recording_id: str, lane: Lane | None, setting: str, version: Version, capacity_bytes: int | None, event: int
) -> SegmentMap:
    """Return the segments that these settings would hold right after an event."""
    return segment_map.simulated_map(
        session.timeline(recording_id, lane),
        numbers(recording_id, lane),
        trace(recording_id, lane),
        AllocatorConfig.parse(setting, version),
        event,
        setting=setting,
        capacity_bytes=capacity_bytes,
    )


@st.cache_resource(max_entries=_FEW, show_spinner=False)
def recorded_map(recording_id: str, lane: Lane | None, event: int) -> SegmentMap:
    """Return the segments that the recording says were held right after an event."""
    return segment_map.recorded_map(session.recording(recording_id), session.timeline(recording_id, lane), event)


def is_replayable(num_events: int) -> bool:
    """Return whether the page can replay a recording; where it cannot, say why and what can."""
    if not num_events:
        st.info("This recording has no events: nothing was allocated or freed while it ran.")
    elif num_events > MAX_STEPS:
        st.info(
            f"This recording has {num_events:,} events; up to {MAX_STEPS:,} are replayed here. "
            "`python -m profiler replay FILE` replays any."
        )
    return 0 < num_events <= MAX_STEPS

"""Replays of recordings, each done once; those of long recordings by a worker, with their progress shown and a way to leave them."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.shared import session
from profiler.allocator.config import NEWEST
from profiler.allocator.recorded import recorded_config
from profiler.analysis import reserved, segment_map
from profiler.analysis.allocator_settings import DEFAULT, label_of, text_of
from profiler.analysis.blocks import Lane
from profiler.analysis.limits import limits_of_replay
from profiler.analysis.recorded_failure import RecordedFailure
from profiler.analysis.replays import Explained, Question, Replays, Topic, Tried
from profiler.analysis.reserved import ReservedSeries
from profiler.analysis.segment_map import SegmentMap
from profiler.errors import HeadroomError
from profiler.jobs.replayer import Request

MAX_EVENTS_HERE = 300_000
"""More are replayed by a worker: each replay would keep the server busy for over a second."""
_FEW = 8
"""What is as large as a recording: some 40 bytes an event."""
_MANY = 1_000
_CANCELLED = "replays_cancelled"
Version = tuple[int, int]


@st.cache_resource(max_entries=_MANY, show_spinner=False)
def in_force(recording_id: str, lane: Lane | None) -> tuple[str, Version]:
    """Return the settings, as text, and the torch version that a recording was made with, as far as it says."""
    device, rank = session.timeline(recording_id, lane).lane
    try:
        config = recorded_config(session.recording(recording_id), device, rank)
    except HeadroomError:  # impossible settings of a damaged file; it can still be replayed with others
        return DEFAULT, NEWEST
    return text_of(config), config.torch_version


@st.cache_resource(max_entries=_FEW, show_spinner=False)
def recorded(recording_id: str, lane: Lane | None) -> ReservedSeries | None:
    """Return what was reserved as the recording says it; None where it does not."""
    return reserved.recorded_reserved(session.recording(recording_id), session.timeline(recording_id, lane))


@st.cache_resource(max_entries=_MANY, show_spinner=False)
def limits(recording_id: str, lane: Lane | None, *, on_a_card: bool) -> list[str]:
    """Return what cannot be exact about other settings or another card for a recording."""
    recording, own_lane = session.recording(recording_id), session.timeline(recording_id, lane).lane
    return limits_of_replay(
        recording,
        own_lane,
        reserved.lane_trace(recording, own_lane),
        knows_segments=recorded(recording_id, lane) is not None,
        as_recorded=False,
        on_a_card=on_a_card,
    )


@st.cache_resource(max_entries=_FEW, show_spinner=False)
def recorded_map(recording_id: str, lane: Lane | None, event: int) -> SegmentMap:
    """Return the segments that the recording says were held right after an event."""
    return segment_map.recorded_map(session.recording(recording_id), session.timeline(recording_id, lane), event)


def series(recording_id: str, lane: Lane | None, setting: str, version: Version, capacity_bytes: int | None) -> ReservedSeries:
    """Return what would have been reserved with these settings."""
    found: ReservedSeries = _answer(recording_id, lane, Question(Topic.SERIES, setting, version, capacity_bytes))
    return found


def trial(recording_id: str, lane: Lane | None, setting: str, version: Version, capacity_bytes: int | None) -> Tried:
    """Return the numbers of one setting on one card."""
    found: Tried = _answer(recording_id, lane, Question(Topic.TRIAL, setting, version, capacity_bytes))
    return found


def smallest(recording_id: str, lane: Lane | None, setting: str, version: Version) -> int:
    """Return the bytes that the allocator must at least be able to reserve; about a dozen replays."""
    found: int = _answer(recording_id, lane, Question(Topic.SMALLEST, setting, version))
    return found


def explanation(recording_id: str, lane: Lane | None, setting: str, version: Version, capacity_bytes: int) -> Explained | None:
    """Return why memory runs out on a card; None where it does not. About two dozen replays where it does."""
    found: Explained | None = _answer(recording_id, lane, Question(Topic.EXPLANATION, setting, version, capacity_bytes))
    return found


def recorded_failure(recording_id: str, lane: Lane | None) -> RecordedFailure | None:
    """Return why memory ran out in the recorded run itself; None where it did not. About two dozen replays where it did."""
    found: RecordedFailure | None = _answer(recording_id, lane, Question(Topic.RECORDED_FAILURE))
    return found


def simulated_map(
    recording_id: str, lane: Lane | None, setting: str, version: Version, capacity_bytes: int | None, event: int
) -> SegmentMap:
    """Return the segments that these settings would hold right after an event."""
    found: SegmentMap = _answer(recording_id, lane, Question(Topic.MAP, setting, version, capacity_bytes, event))
    return found


def _answer(recording_id: str, lane: Lane | None, question: Question) -> Any:
    if session.timeline(recording_id, lane).num_events <= MAX_EVENTS_HERE:
        return _answer_here(recording_id, lane, question)
    replayer = session.replayer()
    request = Request(session.recording_path(recording_id), recording_id, lane, question)
    if request in replayer:
        return replayer.ask(request)
    return _answer_of_worker(request)


@st.cache_resource(max_entries=_MANY, show_spinner=False)
def _answer_here(recording_id: str, lane: Lane | None, question: Question) -> Any:
    return _replays(recording_id, lane).answer(question)


@st.cache_resource(max_entries=_FEW, show_spinner=False)
def _replays(recording_id: str, lane: Lane | None) -> Replays:
    return Replays(session.recording(recording_id), session.timeline(recording_id, lane))


def _answer_of_worker(request: Request) -> Any:
    """Ask the worker with its progress shown. Leaving the page, a change of the settings, or Cancel ends its work."""
    place = st.empty()
    key = f"replay_{hash(request)}"
    if session.recall(_CANCELLED) == request:
        with place.container(horizontal=True, vertical_alignment="center"):
            st.info("The replay was cancelled.")
            st.button("Replay it", on_click=session.remember, args=(_CANCELLED, None), key=key)
        st.stop()
    text = _TEXTS[request.question.topic].format(label_of(request.question.setting))
    with place.container(horizontal=True, vertical_alignment="center"):
        bar = st.progress(0.0, text=text)
        st.button("Cancel", on_click=session.remember, args=(_CANCELLED, request), key=key)

    def show(share: float) -> None:
        bar.progress(share, text=text)

    try:
        return session.replayer().ask(request, show)
    finally:
        place.empty()


_TEXTS = {
    Topic.SERIES: "Replaying with {} settings",
    Topic.TRIAL: "Replaying with {} settings",
    Topic.MAP: "Replaying with {} settings up to this instant",
    Topic.SMALLEST: "Finding the smallest card with {} settings",
    Topic.EXPLANATION: "Trying what would help {} settings",
    Topic.RECORDED_FAILURE: "Trying what would have helped the recorded run",
}

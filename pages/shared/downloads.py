"""What can be taken away: the chart's numbers, the facts, the events, and the recording itself."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import streamlit as st

from pages.shared import components, details, library, session
from profiler.analysis.blocks import Lane
from profiler.figures.timeline import timeline_table


def row(entry: library.Entry, lane: Lane | None) -> None:
    """Draw the downloads of a recording; each is made when it is asked for."""
    name = entry.id
    with st.container(horizontal=True, vertical_alignment="center"):
        components.download("Chart as CSV", lambda: _csv(name, lane), f"{name}.csv", "text/csv")
        components.download("Facts as JSON", lambda: json.dumps(session.summary(name, lane), indent=1), f"{name}.json", "application/json")
        components.download("Events as Parquet", lambda: _parquet(name), f"{name}.parquet", "application/vnd.apache.parquet")
        components.download("Recording", entry.path.read_bytes, f"{name}.headroom", "application/zip")
    cost = details.overhead(entry.metadata)
    if cost:
        st.caption(cost)


def _csv(recording_id: str, lane: Lane | None) -> str:
    timeline = session.timeline(recording_id, lane)
    return str(timeline_table(timeline, timeline.pick_rows()).to_csv(index=False))


def _parquet(recording_id: str) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(session.recording(recording_id).events, buffer, compression="zstd")
    return buffer.getvalue()

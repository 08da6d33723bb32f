"""Recordings to choose from, as cards and lists that link to the timeline."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from pages.shared import components, library, session
from profiler.spec import Job

TIMELINE = "pages/timeline.py"
_NUM_COLUMNS = 3
_MAX_RUNS = 12


def samples() -> None:
    """Draw one card a sample: what it is, its peak, and one sentence on what to notice."""
    shipped = library.samples()
    if not shipped:
        st.caption("No sample recordings are here. `make samples` makes them.")
    grid = st.grid(_NUM_COLUMNS, min_column_width=260, border=True)
    for entry in shipped:
        with grid.cell():
            _card(entry)


def runs(entries: Sequence[library.Entry]) -> None:
    """Draw the newest runs as a list of links."""
    for entry in entries[:_MAX_RUNS]:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.page_link(TIMELINE, label=entry.metadata.title, query_params=session.recording_link(entry))
            st.caption(f"{entry.metadata.created[:16].replace('T', ' ')} · {entry.metadata.provenance.value}")
            components.outcome(entry.metadata)
    if len(entries) > _MAX_RUNS:
        st.caption(f"The newest {_MAX_RUNS} of {len(entries)}; Timeline lists all.")


def _card(entry: library.Entry) -> None:
    metadata = entry.metadata
    st.page_link(TIMELINE, label=f"**{metadata.title}**", query_params=session.recording_link(entry))
    with components.refusals_shown():
        what = Job.from_json(metadata.job).title if metadata.job else metadata.engine
        st.caption(f"{what} · {metadata.provenance.value}")
        notice = str(metadata.facts.get("notice", ""))
        for sentence in [notice.partition(". ")[0].rstrip(".") + "."] if notice else session.sentences(entry.id)[:1]:
            st.markdown(sentence)

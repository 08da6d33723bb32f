"""Which recording, and which of its memories, a page shows; and what to do where the link's recording is not here."""

from __future__ import annotations

import streamlit as st

from pages.shared import gallery, library, session
from profiler.analysis.blocks import Lane

_KEY = "choosing_recording"


def recording() -> library.Entry | None:
    """Draw the list of recordings and return the chosen one; None where nothing can be shown, after saying what to do."""
    entries = {entry.id: entry for entry in session.entries()}
    labels = library.labels(entries.values())
    wanted = session.chosen("recording")
    session.remember(_KEY, wanted if wanted in entries else None)
    st.selectbox(
        "Recording",
        list(entries),
        format_func=labels.__getitem__,
        key=_KEY,
        index=None,
        placeholder="Choose a recording",
        on_change=_choose,
    )
    if wanted in entries:
        return entries[wanted]
    _nothing_chosen() if wanted is None else _not_here(wanted)
    return None


def lane(recording_id: str) -> Lane | None:
    """Draw the choice of memory where a recording has several; None is the default one."""
    lanes = {lane.label: lane for lane in session.blocks(recording_id).lanes()}
    if len(lanes) < 2:
        return None
    label = st.segmented_control("Memory", list(lanes), required=True, **session.linked("memory", list(lanes)))
    return lanes[str(label)]


def _choose() -> None:
    chosen = session.recall(_KEY)
    entry = next((entry for entry in session.entries() if entry.id == chosen), None)
    link = session.recording_link(entry) if entry else {}
    session.choose(**(dict.fromkeys((*session.ABOUT_RECORDING, "at")) | {"recording": chosen} | link))


def _nothing_chosen() -> None:
    st.caption("Choose one above, or begin with a sample:")
    gallery.samples()


def _not_here(wanted: str) -> None:
    st.warning(f"The recording {wanted[:40]} of this link is not on this machine.")
    job = session.linked_job()
    if job is None:
        st.markdown("Ask for the `.headroom` file and open it on the Start page, or choose another recording above.")
        return
    st.markdown(f"The link holds its job, so it can run here: **{job.title}**")
    link = session.job_link(job, session.chosen("engine"))
    st.page_link("pages/profile.py", label="Run it on this machine", icon=":material/arrow_forward:", query_params=link)

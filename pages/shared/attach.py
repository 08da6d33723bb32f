"""A recording in progress, as its parts are written: this dashboard's own runs, and trainings that write into its folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import streamlit as st

from pages.shared import components, session
from profiler.analysis.timeline import Timeline
from profiler.figures.timeline import timeline_figure, timeline_table
from profiler.units import format_bytes


def panel() -> None:
    """Draw the choice of a recording in progress and, as it grows, its timeline."""
    st.subheader("Recordings in progress", anchor=False)
    folders = {folder.stem: folder for folder in session.store().partials()}
    if not folders:
        st.caption(f"None. Runs of Profile appear here, and whatever writes into {session.store().runs}.")
        return
    names = list(folders)
    chosen = st.selectbox("Attach to", names, format_func=_titles(folders).__getitem__, **session.linked("live", names))
    timeline = session.partial_timeline(folders[str(chosen)])
    if timeline is None or not timeline.num_events:
        st.caption("Its first step is not written yet.")
        return
    _draw(timeline)


def _titles(folders: dict[str, Path]) -> dict[str, str]:
    """Return what the list shows; where two would look the same, their files' names too, since a list knows a choice by its text."""
    titles = {name: _title(folder) for name, folder in folders.items()}
    count = Counter(titles.values())
    return {name: title if count[title] == 1 else f"{title} ({name})" for name, title in titles.items()}


def _title(folder: Path) -> str:
    timeline = session.partial_timeline(folder)
    return timeline.metadata.title if timeline else folder.stem


def _draw(timeline: Timeline) -> None:
    picked = timeline.pick_rows(axis="time")
    if session.chosen("show") == "Numbers":
        components.table(timeline_table(timeline, picked), key="attached_table", alt="Allocated memory by category at each drawn event")
    else:
        figure = timeline_figure(timeline, picked, axis="time", theme=session.theme())
        components.chart(
            figure, key="attached", alt="Allocated memory by category of the recording in progress; Numbers shows it as a table."
        )
    steps = len(timeline.steps)
    st.caption(f"{steps} steps so far; peak {format_bytes(timeline.peak_bytes)} allocated on {timeline.lane.label}; {picked.statement}.")

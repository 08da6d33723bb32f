"""Why memory runs out on the card that was given: what was asked for, what was free and of no use, who held the rest, what would help."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages.shared import components, replays, session
from pages.shared.allocator_editor import Choice
from pages.shared.allocator_what_if import trial_of, wanted
from profiler.allocator.out_of_memory import Explanation
from profiler.analysis.allocator_settings import DEFAULT, label_of
from profiler.analysis.blocks import Lane
from profiler.analysis.instants import recorded_out_of_memory
from profiler.analysis.out_of_memory import Alive, alive_when_memory_ran_out, held_after
from profiler.analysis.replays import Explained
from profiler.analysis.timeline import Timeline
from profiler.figures.composition import composition_figure
from profiler.units import exact_bytes, format_bytes

_REPLAYS = 24
_MAX_ROWS = 200


def panel(recording_id: str, lane: Lane | None, choice: Choice, timeline: Timeline) -> None:
    """Draw the explanation for the chosen setting, or for the default where only that fails; what to do where nothing fails."""
    _recorded(recording_id, lane, timeline)
    failing = [setting for setting in (choice.shown, DEFAULT) if trial_of(recording_id, lane, setting, choice).trial.oom]
    if choice.capacity_bytes is None:
        st.caption("Give a card above, such as 24GiB or 300 MiB, to see whether memory runs out on it, at which request, and why.")
        return
    if not failing:
        st.caption(f"With {format_bytes(choice.capacity_bytes)} to reserve, both settings pass.")
        return
    if not wanted("Explain it", _REPLAYS * timeline.num_events, "explain_failure"):
        return
    with st.spinner("Trying what would help"):
        found = replays.explanation(recording_id, lane, failing[0], choice.torch_version, choice.capacity_bytes)
    if found is not None:
        _draw(recording_id, lane, failing[0], found, timeline)


def _draw(recording_id: str, lane: Lane | None, setting: str, explained: Explained, timeline: Timeline) -> None:
    found, event = explained.explanation, explained.event
    where = timeline.at(event)
    step = f"step {where.step}, {where.phase.value}" if where.step >= 0 else where.phase.value
    st.markdown(f"With **{label_of(setting)}** settings memory runs out at event {event:,} ({step}).")
    for sentence in found.sentences():
        st.markdown(f"- {sentence}")
    st.button("Show this instant in the map", on_click=lambda: session.choose(at=str(event)), key="show_failure")
    alive = alive_when_memory_ran_out(found, session.recording(recording_id), timeline.blocks)
    _draw_held(alive, found, key="failure")


def _draw_held(alive: Alive, found: Explanation, key: str) -> None:
    """Draw who held the memory, and the settings that were tried."""
    components.chart(
        composition_figure(alive.by_category, theme=session.theme(), title="Held when memory ran out"),
        key=f"{key}_composition",
        alt="What was allocated when memory ran out, by category; the table beside it has the numbers.",
    )
    left, right = st.columns(2)
    with left:
        by_module = pd.DataFrame(list(alive.by_module.items())[:_MAX_ROWS], columns=["module_or_call", "bytes"])
        by_module["share"] = by_module["bytes"] / max(found.allocated_bytes, 1)
        alt = "Bytes held when memory ran out, by module, or by call where no module is known"
        components.table(by_module, key=f"{key}_modules", alt=alt, height=260)
    with right:
        components.table(_tried(found), key=f"{key}_tried", alt="Settings that were tried instead", height=260)


def _tried(found: Explanation) -> pd.DataFrame:
    rows = [("no" if trial.oom else "yes", trial.name, trial.peak_reserved_bytes) for trial in found.tried]
    return pd.DataFrame(rows, columns=["passes", "setting", "peak_reserved_bytes"])


def _recorded(recording_id: str, lane: Lane | None, timeline: Timeline) -> None:
    """Draw why the recorded run itself ran out of memory, where it did."""
    recording = session.recording(recording_id)
    facts = recorded_out_of_memory(recording, timeline)
    if facts is None:
        return
    st.markdown(
        f"The recorded run ran out of memory itself, last after event {facts['event']:,}: "
        f"{exact_bytes(facts['requested_bytes'])} were requested."
    )
    if not wanted("Explain the recorded error", _REPLAYS * timeline.num_events, "explain_recorded"):
        return
    with st.spinner("Trying what would have helped"):
        found = replays.recorded_failure(recording_id, lane)
    if found is None:
        return
    for sentence in found.sentences():
        st.markdown(f"- {sentence}")
    if found.explanation is not None:
        _draw_held(held_after(timeline, facts["event"], recording.stacks), found.explanation, key="recorded")

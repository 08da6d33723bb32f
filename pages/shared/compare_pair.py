"""Two runs of a comparison on one axis, and what is alive at the peak of one and not of the other, by module and by call site."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.shared import compare_results, components, session
from profiler.analysis.alive_difference import Side, alive_difference
from profiler.analysis.footprint import Footprint
from profiler.analysis.module_difference import module_difference
from profiler.figures.overlaid import Aligned, overlaid_figure
from profiler.planner.comparison import Compared
from profiler.units import format_bytes

_MAX_ROWS = 300
_ALIGNED: dict[Aligned, str] = {"phases": "Phases", "time": "Time"}
_BY = ("By module", "By call site")


def panel(compared: Compared) -> None:
    """Draw the choice of two runs, their timelines over each other, and the difference at their peaks."""
    runs = compare_results.named_runs(compared)
    if len(runs) < 2:
        st.caption("Two runs are needed; the others are on their way.")
        return
    names = list(runs)
    left, right = st.columns(2)
    with left:
        first = str(st.selectbox("One run", names, **session.linked("one", names)))
    with right:
        others = [names[1], *(name for name in names if name != names[1])]
        second = str(st.selectbox("The other run", others, **session.linked("other", others)))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        aligned = _choice("Aligned by", "aligned", list(_ALIGNED), _ALIGNED.__getitem__)
        by = _choice("Difference", "by", list(_BY), str)
    sides = (_side(runs[first]), _side(runs[second]))
    figure = overlaid_figure(
        ((first, sides[0].timeline), (second, sides[1].timeline)),
        aligned=aligned,
        theme=session.theme(),
        budget_bytes=compared.budgets.device_bytes,
    )
    components.chart(figure, key="compare_overlaid", alt="Allocated bytes of two runs over their step; Timeline has each run's numbers.")
    st.caption("Each run's step with its peak. " + ("Every phase has the same width." if aligned == "phases" else "From the step's start."))
    _difference(*sides, by)


def _choice(label: str, name: str, options: list[Any], show: Any) -> Any:
    return st.segmented_control(label, options, format_func=show, required=True, **session.linked(name, options))


def _side(run: Footprint) -> Side:
    """Return the instant of a run's peak.

    Raises:
        StorageError, FormatError: its recording went away or is damaged.
    """
    recording_id = str(run.recording_id)
    timeline = session.timeline(recording_id)
    return Side(session.recording(recording_id), timeline, timeline.peak_event)


def _difference(one: Side, other: Side, by: str) -> None:
    change = other.timeline.peak_bytes - one.timeline.peak_bytes
    table = module_difference(one, other) if by == _BY[0] else alive_difference(one, other).table
    st.markdown(
        f"The other run's peak is **{format_bytes(abs(change))}** {'lower' if change < 0 else 'higher'}: the differences add up to it."
    )
    if table.empty:
        return
    components.table(table.head(_MAX_ROWS), key="compare_difference", alt="What the peaks of two runs hold more or less")
    if len(table) > _MAX_ROWS:
        st.caption(f"The largest {_MAX_ROWS} of {len(table):,} differences.")

"""A run as it goes: where it stands, its memory, cancelling it, and the way to its recording."""

from __future__ import annotations

import streamlit as st

from pages.shared import components, session, simulated
from profiler.figures.history import live_figure, live_table
from profiler.jobs.run import SIMULATE, RunState, RunStatus
from profiler.units import format_bytes, format_duration_us

_TIMELINE = "pages/timeline.py"
_POLL_SECONDS = 1.0
_MAX_RUNS = 10
_STARTED = "run_panel_started"


def note_started(run_id: str) -> None:
    """Take note that a run was asked for in this session, which may therefore end it without being asked twice."""
    session.remember(_STARTED, session.recall(_STARTED, frozenset()) | {run_id})


def show(run_id: str) -> RunStatus:
    """Draw a run and return where it stands; while it waits or runs, the panel refreshes by itself.

    Raises:
        SpecError: there is no such run.
    """
    status = session.jobs().status(run_id)
    if status.state.final:
        _draw(status)
        return status

    def poll() -> None:
        now = session.jobs().status(run_id)
        if now.state.final:
            st.rerun()
        _draw(now)

    components.fragment(poll, every_seconds=_POLL_SECONDS)
    return status


def recent() -> None:
    """Draw the newest runs of this machine as links."""
    statuses = session.jobs().list()[:_MAX_RUNS]
    if not statuses:
        return
    st.subheader("Recent runs", anchor=False)
    for status in statuses:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button(status.job.title, on_click=session.choose_run, args=(status,), type="tertiary", key=f"run_{status.run_id}")
            st.caption(_standing(status))


def _draw(status: RunStatus) -> None:
    with st.container(border=True, key="run_panel"):
        st.markdown(f"**{status.job.title}**")
        _STATES[status.state](status)
        if status.live and status.engine != SIMULATE:
            components.chart(live_figure(status.live, theme=session.theme()), key="run_live", alt="Memory of the run over its seconds")
            with st.expander("The chart's numbers"):
                components.table(live_table(status.live), key="run_live_table", alt="Memory of the run over its seconds")


def _queued(status: RunStatus) -> None:
    place = f"Number {status.queue_position} in the queue." if status.queue_position else "In the queue of another server."
    st.markdown(f"{place} It starts by itself; this page can be closed meanwhile.")
    _cancel(status)


def _running(status: RunStatus) -> None:
    share = status.step / status.num_steps if status.num_steps else 0.0
    counted = f"step {min(status.step + 1, status.num_steps)} of {status.num_steps}"
    st.progress(min(share, 1.0), text=f"{status.phase.replace('_', ' ').capitalize()}, {counted}, {_seconds(status)}")
    last = status.live[-1] if status.live else None
    if last is not None:
        allocated = "" if last.allocated_bytes is None else f"{format_bytes(last.allocated_bytes)} allocated, "
        whose = " by the simulation itself" if status.engine == SIMULATE else ""
        st.caption(f"{allocated}{format_bytes(last.rss_bytes)} resident{whose}")
    _cancel(status)


def _done(status: RunStatus) -> None:
    if status.engine == SIMULATE and status.recording_id in {entry.id for entry in session.entries()}:
        st.caption(status.message if status.from_store else f"Simulated in {_seconds(status)}.")
        simulated.result(status.recording_id, status.job.device)
    else:
        st.success(status.message if status.from_store else f"Recorded in {_seconds(status)}.")
    _open(status, "Explore it in Timeline")


def _failed(status: RunStatus) -> None:
    st.error(status.message or "The run failed and left no words.")
    _open(status, "See what was recorded until then")


def _cancelled(status: RunStatus) -> None:
    st.info(status.message or "Cancelled.")


_STATES = {
    RunState.QUEUED: _queued,
    RunState.RUNNING: _running,
    RunState.DONE: _done,
    RunState.FAILED: _failed,
    RunState.CANCELLED: _cancelled,
}


def _open(status: RunStatus, label: str) -> None:
    if status.recording_id:
        query = {"recording": status.recording_id} | session.job_link(status.job, status.engine)
        st.page_link(_TIMELINE, label=label, icon=":material/arrow_forward:", query_params=query)


def _cancel(status: RunStatus) -> None:
    def cancel() -> None:
        session.jobs().cancel(status.run_id)

    if status.run_id in session.recall(_STARTED, frozenset()):
        st.button("Cancel", on_click=cancel, key="run_cancel")
        return
    with st.popover("Cancel", key="run_cancel_asked"):
        st.markdown("This run was not started in this window. Cancelling ends it for everybody who waits for it.")
        st.button("Cancel the run", on_click=cancel, key="run_cancel")


def _seconds(status: RunStatus) -> str:
    return format_duration_us(status.seconds * 1e6)


def _standing(status: RunStatus) -> str:
    how = "simulated, " if status.engine == SIMULATE else ""
    if status.state is RunState.DONE:
        return how + ("answered from the store" if status.from_store else f"done in {_seconds(status)}")
    return how + status.state.value

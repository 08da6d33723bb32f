"""A run as it goes: where it stands, its memory, cancelling it, and the way to its recording."""

from __future__ import annotations

import streamlit as st

from pages.shared import components, library, session, simulated
from profiler.devices import GPUS
from profiler.figures.history import live_figure, live_table
from profiler.jobs.run import CAPTURE, LARGEST_BATCH, LONGEST_SEQUENCE, SEARCHES, SIMULATE, SIMULATING, RunState, RunStatus
from profiler.spec import Job
from profiler.units import format_bytes, format_duration_us

_TIMELINE = "pages/timeline.py"
_COMPARE = "pages/compare.py"
_POLL_SECONDS = 1.0
_MAX_RUNS = 10
_STARTED = "run_panel_started"
_SEARCHES = {LARGEST_BATCH: "Largest batch that fits", LONGEST_SEQUENCE: "Longest sequence that fits"}


def start(job: Job, engine: str) -> None:
    """Start a run and show it; who asked for it in this session may end it without being asked twice.

    Raises:
        JobFailed, StorageError: it cannot be started.
    """
    status = session.jobs().submit(job, engine=engine)
    session.remember(_STARTED, session.recall(_STARTED, frozenset()) | {status.run_id})
    session.choose_run(status)


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
        search = f"{_SEARCHES[status.engine]}: " if status.engine in SEARCHES else ""
        st.markdown(f"**{search}{status.job.title}**")
        _STATES[status.state](status)
        if status.live and status.engine == CAPTURE:
            components.chart(live_figure(status.live, theme=session.theme()), key="run_live", alt="Memory of the run over its seconds")
            with st.expander("The chart's numbers"):
                components.table(live_table(status.live), key="run_live_table", alt="Memory of the run over its seconds")


def _queued(status: RunStatus) -> None:
    place = f"Number {status.queue_position} in the queue." if status.queue_position else "In the queue of another server."
    st.markdown(f"{place} It starts by itself; this page can be closed meanwhile.")
    _cancel(status)


def _running(status: RunStatus) -> None:
    share = status.step / status.num_steps if status.num_steps else 0.0
    number = min(status.step + 1, status.num_steps)
    counted = f"simulation {number} of at most" if status.engine in SEARCHES else f"step {number} of"
    phase = status.phase.replace("_", " ").capitalize()
    st.progress(min(share, 1.0), text=f"{phase}, {counted} {status.num_steps}, {_seconds(status)}")
    last = status.live[-1] if status.live else None
    if last is not None:
        allocated = "" if last.allocated_bytes is None else f"{format_bytes(last.allocated_bytes)} allocated, "
        whose = " by the simulation itself" if status.engine in SIMULATING else ""
        st.caption(f"{allocated}{format_bytes(last.rss_bytes)} resident{whose}")
    _cancel(status)


def _done(status: RunStatus) -> None:
    entry = _entry(status)
    if entry is None or status.engine not in SIMULATING:
        st.success(status.message if status.from_store else f"Recorded in {_seconds(status)}.")
    else:
        st.caption(status.message if status.from_store else f"Simulated in {_seconds(status)}.")
        if status.engine in SEARCHES:
            simulated.search(entry.id)
        simulated.result(entry.id, status.job.device)
        if status.engine == SIMULATE and status.job.device in GPUS:
            _offer_searches(status.job)
    _open(status, "Explore it in Timeline")
    if status.engine not in SEARCHES:
        link = session.comparison_link(status.job, status.engine)
        st.page_link(_COMPARE, label="Compare toggles on it", icon=":material/arrow_forward:", query_params=link)


def _offer_searches(job: Job) -> None:
    with st.container(horizontal=True, gap="small"):
        for engine, label in _SEARCHES.items():
            if st.button(label, key=f"run_{engine}", help="Simulates some candidates, one after another, until the limit is known."):
                with components.refusals_shown():
                    start(job, engine)
                    st.rerun()


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
    if entry := _entry(status):
        st.page_link(_TIMELINE, label=label, icon=":material/arrow_forward:", query_params=session.recording_link(entry))


def _entry(status: RunStatus) -> library.Entry | None:
    """Return the run's recording, where it is still here."""
    return next((entry for entry in session.entries() if entry.id == status.recording_id), None)


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
    how = {CAPTURE: "", SIMULATE: "simulated, "} | {engine: f"{label.lower()}, " for engine, label in _SEARCHES.items()}
    if status.state is RunState.DONE:
        return how[status.engine] + ("answered from the store" if status.from_store else f"done in {_seconds(status)}")
    return how[status.engine] + status.state.value

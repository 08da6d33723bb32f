"""The runs of a comparison as they go: what is stored is shown at once, the rest is started by a button, followed, and can be cancelled."""

from __future__ import annotations

import secrets

import streamlit as st

from pages.shared import components, session
from profiler.jobs.comparing import ComparisonRuns
from profiler.jobs.run import CAPTURE, RunState
from profiler.planner.comparison import Compared, Comparison, name_of

_SOON_SECONDS, _POLL_SECONDS = 0.3, 0.5
"""How often to look: soon while what was asked for is on its way."""
_OWNER = "compare_owner"
_ENGINE_VERBS = {CAPTURE: "Measure"}


class _Followed:
    """The runs of the last comparison of a place of the page, and whether they were asked for."""

    def __init__(self, comparison: Comparison, engine: str, before: _Followed | None) -> None:
        self.runs = ComparisonRuns(session.jobs(), comparison, engine, owner=_owner())
        self.runs.look()
        self.cancelled = False
        # A simulation takes seconds: once asked for, every change is followed. To measure takes the machine, and is asked for each time.
        self.started: bool = before is not None and before.started and engine == before.runs.engine != CAPTURE
        if before is not None:
            before.runs.cancel(keeping=self.runs if self.started else None)

    @property
    def shows_asked(self) -> bool:
        """Whether what was asked for is known, so that it is drawn before other runs take the processor."""
        return {(), self.runs.comparison.asked} <= self.runs.compared().footprints.keys()

    def cancel(self) -> None:
        """End the runs, and follow no change any more."""
        self.started, self.cancelled = False, True
        self.runs.cancel()


def panel(comparison: Comparison, engine: str, *, place: str = "compare", label: str = "Compare") -> Compared:
    """Draw where the runs of a comparison stand, with the button that starts them, and return what is known.

    Args:
        comparison: what is compared.
        engine: what runs it.
        place: tells several of a page apart.
        label: of the button.

    Raises:
        SpecError: the baseline or the waterfall is not possible.
    """
    followed = _followed(comparison, engine, f"{place}_followed")
    if followed.started:
        followed.runs.look()
        if not followed.shows_asked:
            followed.runs.advance()
    if followed.started and not followed.runs.ended:
        _follow(followed, place)
    else:
        _tell_failures(followed)
        if any(run.state is not RunState.DONE for run in followed.runs.runs.values()):
            _offer(followed, place, label)
    return followed.runs.compared()


def _followed(comparison: Comparison, engine: str, key: str) -> _Followed:
    found: _Followed | None = session.recall(key)
    if found is None or (found.runs.comparison, found.runs.engine) != (comparison, engine):
        found = _Followed(comparison, engine, found)
        session.remember(key, found)
    return found


def _owner() -> str:
    if session.recall(_OWNER) is None:
        session.remember(_OWNER, secrets.token_hex(8))
    return str(session.recall(_OWNER))


def _offer(followed: _Followed, place: str, label: str) -> None:
    """Draw the button that starts what is missing; of a comparison that ended, all that gave no result begins anew."""
    runs = followed.runs

    def start() -> None:
        again = _Followed(runs.comparison, runs.engine, None)
        again.started = True
        session.remember(f"{place}_followed", again)

    num_missing = sum(run.state is not RunState.DONE for run in runs.runs.values())
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(label, type="primary", on_click=start, key=f"{place}_start")
        here = f", {len(runs.runs) - num_missing} are here already" if num_missing < len(runs.runs) else ""
        st.caption(f"{_counted(num_missing)} to make{here}. All together comes first, then the order of the waterfall and the rest.")


def _counted(num_runs: int) -> str:
    return f"{num_runs} run" + ("s" if num_runs != 1 else "")


def _follow(followed: _Followed, place: str) -> None:
    """Draw the progress, which looks again by itself; the page is drawn anew when another run is done."""
    runs = followed.runs
    num_known = len(runs.compared().footprints)
    is_drawn = False

    def poll() -> None:
        nonlocal is_drawn
        if is_drawn:
            if len(runs.look().footprints) != num_known or runs.ended:
                st.rerun()
            runs.advance()
        is_drawn = True
        _draw_progress(followed, place)

    components.fragment(poll, every_seconds=_POLL_SECONDS if followed.shows_asked else _SOON_SECONDS)


def _draw_progress(followed: _Followed, place: str) -> None:
    every = followed.runs.runs.values()
    num_ended = sum(run.ended for run in every)
    running = [name_of(run.switched) for run in every if run.state is RunState.RUNNING]
    now = f": {'; '.join(running)}" if running else ""
    st.progress(num_ended / len(every), text=f"{num_ended} of {len(every)} runs are done{now}")
    st.button("Cancel", on_click=followed.cancel, key=f"{place}_cancel")


def _tell_failures(followed: _Followed) -> None:
    failed = [run for run in followed.runs.runs.values() if run.state is RunState.FAILED]
    for message in dict.fromkeys(run.message for run in failed):
        names = ", ".join(name_of(run.switched) for run in failed if run.message == message)
        st.error(f"{names}: {message or 'the run failed and left no words.'}")
    if followed.cancelled or any(run.state is RunState.CANCELLED for run in followed.runs.runs.values()):
        st.info("Cancelled. What was done until then is kept and shown.")

"""Experiments as they go: started by a button, followed, cancelled; what the store has comes back at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import streamlit as st

from pages.shared import components, session
from profiler.compression.base import to_install
from profiler.compression.default_lab import default_lab
from profiler.compression.experiment import Experiment
from profiler.compression.result import Result
from profiler.errors import HeadroomError, SpecError
from profiler.jobs.experiments import WORKERS, asked_of, result_key
from profiler.jobs.lab_runs import Asked, LabStatus
from profiler.jobs.run import RunState
from profiler.units import format_bytes, format_duration_us

_POLL_SECONDS = 0.5
_AT_A_TIME = "two at a time" if WORKERS == 2 else "one after the other"
_RUNS, _REFUSED = "compress_runs", "compress_refused"


def find(experiment: Experiment) -> Result | None:
    """Return what the store has of an experiment on this machine."""
    return session.experiments().store.find(result_key(experiment))


def measured_before(experiment: Experiment) -> Result | None:
    """Return the newest result of the same techniques and seed on the same weights, whichever version measured it."""
    wanted = (experiment.stages, experiment.seed)
    return next((result for result in results(experiment.model) if (result.experiment.stages, result.experiment.seed) == wanted), None)


def results(model: str) -> list[Result]:
    """Return the newest result of each experiment on a model as it is now, newest first; without those that went matrix by matrix."""
    found: dict[tuple[object, ...], Result] = {}
    for result in session.experiments().store.list():
        experiment = result.experiment
        if experiment.model == model and experiment.stages:
            found.setdefault((experiment.stages, experiment.seed), result)
    newest = next(iter(found.values()), None)
    return [result for result in found.values() if newest and result.model_hash == newest.model_hash]


def missing(experiment: Experiment) -> str | None:
    """Return what has to be installed before an experiment can be run here, as a sentence; None where nothing has."""
    return to_install(dict.fromkeys(name for item in experiment.techniques for name in item.needs))


def busy() -> bool:
    """Return whether an experiment that was started in this session waits or runs."""
    return bool(_going())


def offer(asked: Sequence[Experiment | Asked[Any]], *, label: str = "Measure", key: str = "compress_measure") -> None:
    """Draw the button that measures what is not in the store yet; where nothing is missing, the one that measures again.

    Args:
        asked: what to measure, in order.
        label: of the button.
        key: of its widget.
    """
    unknown = [one for one in asked if _question(one).find() is None]
    running = busy()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if unknown:
            st.button(label, type="primary", on_click=partial(start, unknown), disabled=running, key=key)
            counted = f"{len(unknown)} experiments, {_AT_A_TIME}, each" if len(unknown) > 1 else "One measurement,"
            st.caption(f"{counted} in a process of its own, on one thread. What is done is kept.")
        else:
            st.button("Measure again", type="tertiary", on_click=partial(start, asked, fresh=True), disabled=running, key=key)


def offer_default_lab(model: str, measured: Sequence[Result]) -> None:
    """Draw the button that measures what is missing of the default lab; nothing where all of it was measured.

    Args:
        model: a name of the lab's models.
        measured: what was found on it.
    """
    known = {(result.experiment.stages, result.experiment.seed) for result in measured}
    wanted = default_lab(model)
    missing = [one for one in wanted if (one.stages, one.seed) not in known]
    if missing:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button("Run the default lab", on_click=partial(start, missing), disabled=busy(), key="compress_default_lab")
            st.caption(f"Each technique and each pipeline once, {_AT_A_TIME}. Not measured yet: {len(missing)} of {len(wanted)}.")


def start(asked: Sequence[Experiment | Asked[Any]], *, fresh: bool = False) -> None:
    """Have what is asked measured; what is refused is said by `progress`."""
    runs, refused = [], []
    for one in asked:
        try:
            runs.append(session.experiments().ask(_question(one), fresh=fresh).run_id)
        except HeadroomError as error:
            refused.append(str(error))
    session.remember(_RUNS, runs)
    session.remember(_REFUSED, refused)
    st.toast("Refused: the head of the page says why." if refused and not runs else "Measuring: the head of the page shows how far it is.")


def progress() -> None:
    """Draw how far the experiments are that were started in this session, and what became of those that gave no result."""
    statuses = _statuses()
    if any(not status.state.final for status in statuses):
        num_ended = sum(status.state.final for status in statuses)

        def poll() -> None:
            now = _statuses()
            if sum(status.state.final for status in now) != num_ended:
                st.rerun()
            _draw(now)

        components.fragment(poll, every_seconds=_POLL_SECONDS)
    for message in dict.fromkeys([*session.recall(_REFUSED, []), *(_failure(status) for status in statuses)]):
        if message:
            st.error(message)
    if any(status.state is RunState.CANCELLED for status in statuses):
        st.info("Cancelled. What was done until then is kept and shown.")


def _question(one: Experiment | Asked[Any]) -> Asked[Any]:
    return asked_of(one, session.experiments().store) if isinstance(one, Experiment) else one


def _statuses() -> list[LabStatus[Any]]:
    """Return where this session's runs stand; those that the server no longer knows are left out."""
    found = []
    for run_id in session.recall(_RUNS, []):
        try:
            found.append(session.experiments().status(run_id))
        except SpecError:
            continue
    return found


def _going() -> list[LabStatus[Any]]:
    return [status for status in _statuses() if not status.state.final]


def _draw(statuses: Sequence[LabStatus[Any]]) -> None:
    num_ended = sum(status.state.final for status in statuses)
    now = next((status for status in statuses if status.state is RunState.RUNNING), None)
    share = (num_ended + (now.share if now else 0.0)) / len(statuses)
    counted = f"{num_ended} of {len(statuses)} are done. " if len(statuses) > 1 else ""
    if now is None:
        text = f"{counted}Waiting for its turn."
    else:
        seconds, memory = format_duration_us(now.seconds * 1e6), format_bytes(now.rss_bytes)
        text = f"{counted}{now.title}: {now.phase or 'starting'}, {seconds}, {memory} resident"
    st.progress(min(share, 1.0), text=text.replace("*", r"\*"))
    st.button("Cancel", on_click=_cancel, key="compress_cancel")


def _cancel() -> None:
    for status in _going():
        session.experiments().cancel(status.run_id)


def _failure(status: LabStatus[Any]) -> str:
    if status.state is not RunState.FAILED:
        return ""
    return f"{status.title}: {status.message or 'the experiment left no words.'}"

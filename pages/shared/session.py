"""What is chosen and what is loaded: the only module that touches session state, the address and Streamlit's caches.

The address alone says what a page shows: ``?recording=ID``, ``?run=ID``, ``job=JSON`` and the choices of the page. A link, Back and a
reload therefore need no code of their own. The session remembers each page's last address, so that navigation can lead back to it, and the
recording that was shown last, which the pages that show recordings have in common.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import streamlit as st

from pages.shared import library, links, serving
from profiler.analysis.blocks import Blocks, Lane
from profiler.analysis.explain import explain
from profiler.analysis.summary import summarize
from profiler.analysis.timeline import Timeline
from profiler.capture.monitor import History
from profiler.errors import FormatError
from profiler.figures.theme import ThemeName
from profiler.jobs.experiments import WORKERS, Experiments
from profiler.jobs.manager import JobManager
from profiler.jobs.replayer import Replayer
from profiler.jobs.run import CAPTURE, SIMULATE, RunStatus
from profiler.jobs.targets import engine_of
from profiler.recording import Provenance, Recording
from profiler.spec import Job, Toggle
from profiler.storage import RunStore, read_recording

_VISITED = "headroom_visited"
_SHOWN = "headroom_shown"
_OF_RECORDING = ("timeline", "allocator")
"""The pages that show the recording of their address."""
ABOUT_RECORDING = ("recording", "memory", "job", "engine")
"""What in their addresses means the same on each of them."""
_PAGE = "headroom_page"
_THROUGH_APP = "headroom_through_app"
_PAINTED = "headroom_painted"
_PAINT_SECONDS = 0.4
_MAX_DIGITS = 18
"""Of a number in the address."""
_MAX_OPEN = 4
"""Recordings kept in memory; one of a million events takes about 300 MB."""


def begin(page: str) -> None:
    """Start a script run of a page: warm the server up once, and remember the page's address for the navigation."""
    _warm_up()
    st.session_state[_PAGE] = page
    _visited(st.query_params.to_dict())


@contextmanager
def through_app() -> Iterator[None]:
    """Mark that app.py runs the page, for as long as it does."""
    st.session_state[_THROUGH_APP] = True
    try:
        yield
    finally:
        st.session_state.pop(_THROUGH_APP, None)


def came_through_app() -> bool:
    """Return whether app.py runs the page, rather than Streamlit the page's file."""
    return _THROUGH_APP in st.session_state


def last_address(page: str) -> dict[str, str]:
    """Return the query that a page was last shown with; one of recordings moves on to the recording that another of them showed since."""
    address: dict[str, str] = st.session_state.get(_VISITED, {}).get(page, {})
    shown: dict[str, str] = st.session_state.get(_SHOWN, {})
    moves_on = page in _OF_RECORDING and "recording" in shown and shown["recording"] != address.get("recording")
    return dict(shown if moves_on else address)


def _visited(query: dict[str, str]) -> None:
    """Remember what the page that runs is shown with."""
    page = st.session_state[_PAGE]
    st.session_state.setdefault(_VISITED, {})[page] = query
    if page in _OF_RECORDING:
        st.session_state[_SHOWN] = {name: query[name] for name in ABOUT_RECORDING if name in query}


def chosen(name: str) -> str | None:
    """Return what the address says about ``name``, such as ``recording``."""
    return st.query_params.get(name) or None


def choose(**changes: str | None) -> None:
    """Change the address, and so what the page shows; None takes a name out of it. One entry in the browser's history."""
    query = st.query_params.to_dict() | changes
    wanted = {name: value for name, value in query.items() if value}
    if wanted != st.query_params.to_dict():
        st.query_params.from_dict(wanted)
        _visited(wanted)


def linked(name: str, options: Sequence[Any]) -> dict[str, Any]:
    """Return the arguments that tie a widget of choices to the address; the first option is the default and is not written.

    The options are written with ``str``; what the address says is ignored where it is none of them.
    """
    key = f"linked_{name}"
    texts = {str(option): option for option in options}
    st.session_state[key] = texts.get(chosen(name) or "", options[0])
    return {"key": key, "on_change": _write_choice, "args": (name, key, str(options[0]))}


def linked_number(name: str, default: int, low: int, high: int) -> dict[str, Any]:
    """Return the arguments that tie a slider or number field to the address."""
    key = f"linked_{name}"
    text = chosen(name) or ""
    st.session_state[key] = min(max(int(text[:_MAX_DIGITS]), low), high) if text.isdecimal() else default
    return {"key": key, "on_change": _write_choice, "args": (name, key, str(default)), "min_value": low, "max_value": high}


def linked_text(name: str, max_chars: int) -> dict[str, Any]:
    """Return the arguments that tie a text field to the address."""
    key = f"linked_{name}"
    st.session_state[key] = (chosen(name) or "")[:max_chars]
    return {"key": key, "on_change": _write_choice, "args": (name, key, ""), "max_chars": max_chars}


def _write_choice(name: str, key: str, default: str) -> None:
    value = st.session_state[key]
    choose(**{name: None if value is None or str(value) == default else str(value)})


def recording_link(entry: library.Entry) -> dict[str, str]:
    """Return the query of a link to a recording, with the job that makes it again where it is missing."""
    metadata = entry.metadata
    engine = SIMULATE if metadata.provenance is Provenance.SIMULATED else CAPTURE
    return {"recording": entry.id} | (job_link(Job.from_json(metadata.job), engine) if metadata.job else {})


def run_link(status: RunStatus) -> dict[str, str]:
    """Return the query of a link to a run, with its job."""
    return {"run": status.run_id} | job_link(status.job, status.engine)


def job_link(job: Job, engine: str | None = None) -> dict[str, str]:
    """Return the query of a link that carries a job, and its engine where the device leaves the choice; empty where it is too long."""
    text = links.job_to_text(job)
    if not text:
        return {}
    query = {"job": text}
    if engine and engine_of(job.device, engine) != engine_of(job.device):
        query["engine"] = engine
    return query


def comparison_link(job: Job, engine: str | None = None, toggles: Iterable[Toggle] = ()) -> dict[str, str]:
    """Return the query of a link to a comparison of toggles on a job."""
    text = links.toggles_to_text(toggles)
    return job_link(job, engine) | ({"toggles": text} if text else {})


def choose_run(status: RunStatus) -> None:
    """Change the address to a run and its job."""
    choose(**({"job": None, "engine": None} | run_link(status)))


def linked_job() -> Job | None:
    """Return the job that the address carries.

    Raises:
        SpecError: what it carries is not a job.
    """
    text = chosen("job")
    return links.job_from_text(text) if text else None


def entries() -> list[library.Entry]:
    """Return all recordings that can be chosen: runs, newest first, then samples."""
    return library.entries(store())


def remember(key: str, value: Any) -> None:
    """Keep a value for this session, or set a widget's value before it is drawn."""
    st.session_state[key] = value


def recall(key: str, default: Any = None) -> Any:
    """Return what was kept, or a widget's value."""
    return st.session_state.get(key, default)


def let_paint() -> None:
    """Give a browser that has just connected the time to paint what was sent so far, before a large chart keeps it busy for a second."""
    if not recall(_PAINTED):
        remember(_PAINTED, True)
        time.sleep(_PAINT_SECONDS)


def theme() -> ThemeName:
    """Return the theme that the browser shows."""
    return "dark" if st.context.theme.type == "dark" else "light"


@st.cache_resource
def store() -> RunStore:
    """Return the run store of ``HEADROOM_HOME``."""
    return RunStore()


@st.cache_resource(max_entries=_MAX_OPEN, show_spinner="Reading the recording")
def recording(recording_id: str) -> Recording:
    """Return a recording of this machine by its id.

    Raises:
        StorageError, FormatError: its file went away or is damaged.
        StopIteration: there is none; look among `entries` first.
    """
    return read_recording(recording_path(recording_id))


def recording_path(recording_id: str) -> Path:
    """Return the file of a recording of this machine.

    Raises:
        StopIteration: there is none; look among `entries` first.
    """
    return next(entry.path for entry in entries() if entry.id == recording_id)


@st.cache_resource(max_entries=_MAX_OPEN, show_spinner="Reading the recording")
def blocks(recording_id: str) -> Blocks:
    """Return the blocks of a recording.

    Raises:
        FormatError: its events contradict each other.
    """
    return Blocks.of(recording(recording_id))


@st.cache_resource(max_entries=2 * _MAX_OPEN, show_spinner="Reading the recording")
def timeline(recording_id: str, lane: Lane | None = None) -> Timeline:
    """Return the timeline of one memory of a recording; by default of the first GPU, else the host."""
    return Timeline.of(recording(recording_id), blocks(recording_id), lane)


@st.cache_resource(max_entries=64, show_spinner="Reading the recording")
def summary(recording_id: str, lane: Lane | None = None) -> dict[str, Any]:
    """Return the facts of `profiler.analysis.summary.summarize` for a recording of this machine."""
    return summarize(recording(recording_id), timeline(recording_id, lane))


@st.cache_resource(max_entries=64, show_spinner=False)
def sentences(recording_id: str, lane: Lane | None = None) -> list[str]:
    """Return what a person would say about a recording."""
    return explain(timeline(recording_id, lane))


@st.cache_resource
def jobs() -> JobManager:
    """Return the one manager of worker processes of this server."""
    return JobManager(store().home)


@st.cache_resource
def experiments() -> Experiments:
    """Return what runs the experiments of the compression lab on this server, few at a time, and keeps their results."""
    return Experiments(store().home, slots=WORKERS)


@st.cache_resource
def replayer() -> Replayer:
    """Return the one worker of this server that replays long recordings."""
    return Replayer()


@st.cache_resource
def machine() -> History:
    """Return the last minutes of this machine, read by one thread for all sessions."""
    return History()


def partial_timeline(folder: Path) -> Timeline | None:
    """Return what a recording in progress holds so far; None before its first step is written, or once it was closed."""
    try:
        parts = sorted(path.name for path in folder.glob("events-*.parquet"))
        return _partial_timeline(folder, parts[-1]) if parts else None
    except FormatError:
        return None


@st.cache_resource(max_entries=2, show_spinner=False)
def _partial_timeline(folder: Path, newest_part: str) -> Timeline:
    del newest_part
    return Timeline.of(read_recording(folder))


@st.cache_resource
def _warm_up() -> None:
    """Run once a server: what is loaded by now stays, so that no garbage collection walks over it again."""
    serving.bound_uploads()
    gc.collect()
    gc.freeze()

"""What people bring: a recording or another tool's snapshot, by drop or by path, and the text of an out-of-memory error."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from pages.shared import gallery, serving, session
from profiler.errors import SpecError, StorageError
from profiler.formats.opening import SNAPSHOT_SUFFIXES, Reading, keep_file
from profiler.formats.redact import MAX_CHARS
from profiler.formats.triage import triage
from profiler.jobs.inspection import parameter_bytes
from profiler.models.catalogue import CATALOGUE
from profiler.optimizations.precision import ITEMSIZES
from profiler.spec import MAX_BATCH, MAX_SEQ, Model, Workload
from profiler.storage import SUFFIX

_MAX_NAME = 120
_UPLOADS = "start_uploads"
_UNSAFE = re.compile(r"[^\w.\- ()\[\]]")


def known_model() -> Reading:
    """Draw the choice of the model that a snapshot is of, and return what it says about older blocks.

    Raises:
        JobFailed: the process that looks at the model failed.
    """
    model, number_format = st.columns([2, 1])
    with model:
        name = st.selectbox(
            "Model of a snapshot, if you know it",
            list(CATALOGUE),
            index=None,
            placeholder="Optional",
            key="start_model",
            help="Tells parameters and optimizer state among what is older than the snapshot's history, by their sizes.",
        )
    with number_format:
        kept_in = st.selectbox("Its weights in", list(ITEMSIZES), key="start_model_format", disabled=name is None)
    if name is None:
        return Reading()
    with st.spinner("Looking at the model's parameters"):
        return Reading(parameter_bytes=parameter_bytes(Model(name=name), kept_in))


def upload(reading: Reading) -> None:
    """Draw the field that takes files; what they hold is kept among this machine's runs and shown. Several files are ranks of one run.

    Args:
        reading: what the user says about snapshots.
    """
    types = [suffix.lstrip(".") for suffix in (SUFFIX, *SNAPSHOT_SUFFIXES)]
    number = session.recall(_UPLOADS, 0)
    files = st.file_uploader("Files", type=types, accept_multiple_files=True, key=f"start_upload_{number}", label_visibility="collapsed")
    if not files:
        st.caption(
            f"A `{SUFFIX}` file, or what `torch.cuda.memory._dump_snapshot` or its viewer wrote; several files are the ranks of one run."
            " Files are read by a process of its own and never executed."
        )
        return
    session.remember(_UPLOADS, number + 1)  # the next upload begins anew: a refused file does not join it
    with tempfile.TemporaryDirectory(prefix="headroom-") as name:
        folder = Path(name) / "Uploaded files"
        saved = [_saved(file, folder) for file in files]
        serving.forget([*files, *session.recall(f"start_upload_{number}", [])])  # Streamlit keeps files of its own beside those it gives
        _open(saved[0] if len(saved) == 1 else folder, reading)


def path(reading: Reading) -> None:
    """Draw the field that takes a path; only where the server's files are the user's own.

    Args:
        reading: what the user says about snapshots.
    """
    if not serving.for_one_user():
        return
    with st.form("start_path_form", border=False):
        text = st.text_input("Or a path on this machine", key="start_path", placeholder="snapshot.pickle, or a folder with one file a rank")
        wanted = st.form_submit_button("Open")
    if not wanted or not text.strip():
        return
    if not text.isprintable():
        raise SpecError("The path holds characters that no path has. Type it, or copy it without line breaks.")
    _open(Path(text.strip().strip("'\"")).expanduser(), reading)


def explanation() -> None:
    """Draw the box for an out-of-memory message, and what it means.

    Raises:
        FormatError: there is no such message in the text.
    """
    text = st.text_area(
        "Paste an out-of-memory message, a log that ends with one, or a memory summary", key="oom_text", height=120, max_chars=MAX_CHARS
    )
    chosen = st.selectbox(
        "The model that ran, to name the tensor that was asked for", list(CATALOGUE), index=None, placeholder="Optional", key="oom_model"
    )
    workload = _workload() if chosen else None
    if not text.strip():
        return
    found = triage(text, Model(name=chosen) if chosen else None, workload)
    st.markdown(f"**{found.verdict}**")
    st.markdown("\n".join(f"- {sentence}" for sentence in found.explanation))
    st.markdown("What to try, likeliest help first:\n\n" + "\n".join(f"1. {suggestion}" for suggestion in found.suggestions))
    st.caption("As Markdown, for a question or a bug report. Paths and names are taken out; read it before you publish it.")
    st.code(found.to_markdown(), language="markdown", height=240)


def _workload() -> Workload | None:
    """Draw the fields for the batch that ran, and return it; None where not all of it is said: nothing is named from a guess."""
    left, right = st.columns(2)
    with left:
        batch = st.number_input("Sequences in its batch", 1, MAX_BATCH, value=None, step=1, placeholder="Optional", key="oom_batch")
    with right:
        seq = st.number_input("Tokens a sequence", 1, MAX_SEQ, value=None, step=1, placeholder="Optional", key="oom_seq")
    return Workload(batch=batch, seq=seq) if batch and seq else None


def _saved(file: UploadedFile, folder: Path) -> Path:
    """Write an uploaded file where a worker can read it and return its path, named as the user calls it."""
    path = folder / (_UNSAFE.sub("_", file.name)[-_MAX_NAME:].lstrip(".") or "file")
    try:
        folder.mkdir(exist_ok=True)
        file.seek(0)
        with path.open("wb") as target:
            shutil.copyfileobj(file, target)
    except OSError as error:
        raise StorageError(f"{file.name} cannot be put aside: {error.strerror}. Free some space, or open it by its path.") from error
    return path


def _open(path: Path, reading: Reading) -> None:
    """Read a file or folder with its progress shown, keep it, and show it in Timeline."""
    text = f"Reading {path.name}"
    bar = st.progress(0.0, text=text)

    def show(share: float) -> None:
        bar.progress(min(share, 1.0), text=text)

    try:
        recording = keep_file(path, session.store(), reading, show)
    finally:
        bar.empty()
    entry = next(entry for entry in session.entries() if entry.id == recording.id)
    st.switch_page(gallery.TIMELINE, query_params=session.recording_link(entry))

"""A job -> its recording: run in a worker process, waited for on the terminal, kept in the store and where the user wants it."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path

from profiler.cli.command import Parser, output_path, require, show_progress
from profiler.errors import JobFailed, SpecError, StorageError
from profiler.jobs.manager import JobManager
from profiler.jobs.run import Limits, RunState, RunStatus
from profiler.spec import Job
from profiler.storage import SUFFIX
from profiler.units import parse_bytes

_POLL_SECONDS = 0.1


def add_run_options(parser: Parser) -> None:
    """Declare the options that `run_job` reads."""
    parser.add_argument("--out", type=Path, help="copy the recording here; it is kept in the run store in any case")
    parser.add_argument("--fresh", action="store_true", help="run even if the store holds an equal run")
    parser.add_argument("--memory-limit", metavar="SIZE", help="end the run above this resident set, such as 8GiB")
    parser.add_argument("--time-limit", type=float, default=Limits().seconds, metavar="SECONDS")


def run_job(options: argparse.Namespace, job: Job, engine: str, command: str) -> tuple[Path, RunStatus]:
    """Run a job and return the path of its recording and how the run ended; an interrupt cancels it.

    Args:
        options: those of `add_run_options`.
        job: what to run.
        engine: what runs it.
        command: what the user typed, for errors.

    Raises:
        SpecError: the job, or a limit, is not possible.
        CaptureUnavailable: a library is not installed.
        JobFailed: the run gave no result.
        StorageError: ``--out`` cannot be written.
    """
    limits = Limits(memory_bytes=parse_bytes(options.memory_limit) if options.memory_limit else None, seconds=options.time_limit)
    out = _writable(options.out) if options.out else None
    for library in ("torch", "transformers"):
        require(library, command)
    manager = JobManager()
    try:
        status = _wait(manager, manager.submit(job, limits=limits, fresh=options.fresh, engine=engine))
    finally:
        manager.close()
    if status.state is not RunState.DONE or status.recording_path is None:
        kind = SpecError if status.refused else JobFailed
        raise kind(status.message or f"The run was {status.state}.")
    return (_copied(status.recording_path, out) if out else status.recording_path), status


def _wait(manager: JobManager, status: RunStatus) -> RunStatus:
    """Return the run once it has ended, telling on a terminal how far it is; an interrupt cancels it."""
    shown = ""
    try:
        while not status.state.final:
            line = f"{status.state} · step {status.step} of {status.num_steps} · {status.phase}" if status.num_steps else str(status.state)
            if line != shown:
                show_progress(line)
                shown = line
            time.sleep(_POLL_SECONDS)
            status = manager.status(status.run_id)
    except KeyboardInterrupt:
        manager.cancel(status.run_id)
        raise
    finally:
        if shown:
            show_progress()
    return status


def _writable(out: Path) -> Path:
    """Return ``out`` with its suffix, after trying whether a file can be made there: better now than when the run is over."""
    out = output_path(out, SUFFIX)
    temporary = _temporary(out)
    try:
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror}. Nothing was run; choose another --out.") from error
    return out


def _copied(path: Path, out: Path) -> Path:
    temporary = _temporary(out)
    try:
        shutil.copyfile(path, temporary)
        temporary.replace(out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise StorageError(f"{out} cannot be written: {reason}. The recording is kept as {path}; choose another --out.") from error
    return out


def _temporary(out: Path) -> Path:
    return out.with_name(f".{out.name}.{os.getpid()}.tmp")

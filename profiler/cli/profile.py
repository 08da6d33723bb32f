"""``profile``: a model's steps, run in a worker process and recorded."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from profiler.analysis.summary import summarize
from profiler.cli.command import DONE, Commands, add_command, output_path, print_json, print_summary, require
from profiler.cli.job import add_job_options, read_job
from profiler.errors import JobFailed, SpecError, StorageError
from profiler.jobs.manager import JobManager
from profiler.jobs.run import Limits, RunState, RunStatus
from profiler.storage import SUFFIX, read_recording
from profiler.units import parse_bytes

_POLL_SECONDS = 0.1


def add(commands: Commands) -> None:
    """Declare the command."""
    profile = add_command(commands, "profile", _run, "run a model's steps in a worker process and record their memory")
    add_job_options(profile)
    profile.add_argument("--out", type=Path, help="copy the recording here; it is kept in the run store in any case")
    profile.add_argument("--fresh", action="store_true", help="run even if the store holds an equal run")
    profile.add_argument("--memory-limit", metavar="SIZE", help="end the run above this resident set, such as 8GiB")
    profile.add_argument("--time-limit", type=float, default=Limits().seconds, metavar="SECONDS")


def _run(options: argparse.Namespace) -> int:
    job = read_job(options)
    limits = Limits(memory_bytes=parse_bytes(options.memory_limit) if options.memory_limit else None, seconds=options.time_limit)
    out = _writable(options.out) if options.out else None
    for library in ("torch", "transformers"):
        require(library, "profile")
    manager = JobManager()
    try:
        status = _wait(manager, manager.submit(job, limits=limits, fresh=options.fresh))
    finally:
        manager.close()
    if status.state is not RunState.DONE or status.recording_path is None:
        kind = SpecError if status.refused else JobFailed
        raise kind(status.message or f"The run was {status.state}.")
    path = _copied(status.recording_path, out) if out else status.recording_path
    summary = summarize(read_recording(path)) | {"path": str(path), "from_store": status.from_store}
    print_json(summary) if options.json else print_summary(summary, status.message)
    return DONE


def _wait(manager: JobManager, status: RunStatus) -> RunStatus:
    """Return the run once it has ended, telling on a terminal how far it is; an interrupt cancels it."""
    shown = ""
    try:
        while not status.state.final:
            line = f"{status.state} · step {status.step} of {status.num_steps} · {status.phase}" if status.num_steps else str(status.state)
            if sys.stderr.isatty() and line != shown:
                print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
                shown = line
            time.sleep(_POLL_SECONDS)
            status = manager.status(status.run_id)
    except KeyboardInterrupt:
        manager.cancel(status.run_id)
        raise
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
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

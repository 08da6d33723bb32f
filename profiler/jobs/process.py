"""A command -> a worker process with all its children: started, measured, ended together."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import psutil

from profiler.platform_calls import end, own_group, processes_below, signal_name

GRACE_SECONDS = 3.0
"""Between asking a worker to end and ending it."""
_SCAN_SECONDS = 1.0
_SAME_CREATION_SECONDS = 2.0
_TAIL_BYTES = 16_384
_MAX_WORDS = 400
_PACKAGE_PARENT = Path(__file__).resolve().parent.parent.parent


class Child(Protocol):
    """What knows how a process ended; `subprocess.Popen` for its own."""

    def poll(self) -> int | None:
        """Return the exit code; None while it runs.

        Raises:
            ChildProcessError: it will not be known.
        """


class WorkerProcess:
    """A worker and whatever it started. `start` makes one; `adopt` takes over one that an earlier server started.

    Args:
        root: the worker.
        child: what will know how it ended, if anything does.
    """

    def __init__(self, root: psutil.Process, child: Child | None) -> None:
        self._root, self._child = root, child
        self._tree = [root]
        self._scan_due = 0.0
        self._asked: float | None = None

    @classmethod
    def start(cls, command: Sequence[str], stderr: Path) -> WorkerProcess:
        """Start ``command`` in a process group of its own; what it prints is appended to ``stderr``.

        Raises:
            OSError: the command cannot be started.
        """
        with stderr.open("ab") as output:
            popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=worker_environment(),
                **own_group(),
            )
        return cls(psutil.Process(popen.pid), popen)

    @classmethod
    def adopt(cls, pid: int, created: float) -> WorkerProcess | None:
        """Return the process with this number and instant of creation, or None where it is gone."""
        process = find_process(pid, created)
        return None if process is None else cls(process, None)

    @property
    def pid(self) -> int:
        """The worker's process number."""
        return self._root.pid

    @property
    def created(self) -> float:
        """When the worker was created, in seconds since the epoch; tells it from a later process with its number."""
        return self._root.create_time()

    @property
    def exit_code(self) -> int | None:
        """The exit code of a worker that has ended, negative for a signal; None where another server started it and nobody knows."""
        return None if self._child is None else self._child.poll()

    @property
    def asked_to_end(self) -> bool:
        """Whether `ask_to_end` was called."""
        return self._asked is not None

    def running(self) -> bool:
        """Return whether the worker has not ended."""
        if self._child is not None:
            try:
                return self._child.poll() is None
            except ChildProcessError:
                self._child = None
        return _alive(self._root)

    def rss_bytes(self) -> int:
        """Return the resident sets of the worker and its children, added up."""
        now = time.monotonic()
        if now >= self._scan_due:
            self._tree = _descendants(self._root)
            self._scan_due = now + _SCAN_SECONDS
        return sum(_rss_bytes(process) for process in self._tree)

    def ask_to_end(self) -> None:
        """Ask the worker and its children to end (SIGTERM); call `press` until they have."""
        self._asked = time.monotonic()
        self._tree = list({*self._tree, *processes_below(self.pid)})
        for process in self._tree:
            end(process, force=False)

    def press(self) -> None:
        """End by force what is still there `GRACE_SECONDS` after it was asked."""
        if self._asked is not None and time.monotonic() - self._asked >= GRACE_SECONDS:
            self.sweep()

    def sweep(self) -> None:
        """End by force whatever is left of the worker and its children."""
        for process in {*self._tree, *processes_below(self.pid)}:
            end(process, force=True)

    def wait(self, seconds: float) -> None:
        """Wait until the worker has ended, at most ``seconds``."""
        end_at = time.monotonic() + seconds
        while self.running() and time.monotonic() < end_at:
            time.sleep(0.02)


def find_process(pid: int, created: float) -> psutil.Process | None:
    """Return the living process with this number that was created at this instant, or None."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < _SAME_CREATION_SECONDS
    except (psutil.Error, ValueError, OverflowError):
        return None
    return process if same and _alive(process) else None


def worker_environment() -> dict[str, str]:
    """Return the environment of workers: quiet Kineto, one thread, Python's own words on a crash, this package importable."""
    paths = [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "KINETO_LOG_LEVEL": "99",
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
    }


def how_it_ended(exit_code: int | None, last_words: str) -> str:
    """Return sentences for a worker that ended without saying how.

    Args:
        exit_code: negative for a signal, None where unknown.
        last_words: the line it printed last; may be empty.
    """
    if exit_code is None:
        what = "The worker ended without a result."
    elif exit_code == -9:
        what = "The worker was killed (SIGKILL). The system does that when memory runs out: use a smaller batch, sequence or model."
    elif exit_code < 0:
        what = f"The worker crashed ({signal_name(-exit_code)})."
    else:
        what = f"The worker ended with exit code {exit_code} and no result."
    return f"{what} Its last words: {last_words}" if last_words else what


def last_words(printed: Path) -> str:
    """Return the line of what a worker printed that best says how it ended; empty where it printed nothing."""
    try:
        with printed.open("rb") as file:
            file.seek(max(0, printed.stat().st_size - _TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    fatal = [line for line in lines if line.startswith("Fatal Python error")]
    return (fatal or lines or [""])[-1][:_MAX_WORDS]


def _descendants(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return [root]


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _rss_bytes(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0

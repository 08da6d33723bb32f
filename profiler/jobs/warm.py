"""The process that waits with the libraries loaded -> workers that start at once, for as long as this process lives."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from profiler.jobs.process import WorkerProcess, worker_environment
from profiler.platform_calls import own_group

_COMMAND = (sys.executable, "-m", "profiler.jobs.preloader")
_LOADING_SECONDS = 120.0
_FORK_SECONDS = 10.0
_READ_BYTES = 65_536


class Preloader:
    """One preloader process; see `profiler.jobs.preloader`. It is started when first needed, and again after it has ended.

    Args:
        command: what is started.
    """

    def __init__(self, command: Sequence[str] = _COMMAND) -> None:
        self._command = tuple(command)
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._is_loaded = False
        self._is_broken = False
        """It ended, or took too long, before it was ready; another attempt would not go better."""
        self._rest = b""
        self._pids: dict[str, int] = {}
        self._running: set[int] = set()
        self._exit_codes: dict[int, int] = {}

    def prepare(self) -> bool:
        """Start the process if it does not run, and return whether it still loads and will be ready in a moment."""
        with self._lock:
            if self._is_broken:
                return False
            if not self._runs() and (self._process is None or self._is_loaded):
                self._launch()
            self._read(0.0)
            if not self._is_loaded and (not self._runs() or time.monotonic() - self._started > _LOADING_SECONDS):
                self._is_broken = True
                self.close()
            return not self._is_loaded and not self._is_broken

    def fork(self, folder: Path, printed: Path) -> WorkerProcess:
        """Start a worker for the run of ``folder``; what it prints is appended to ``printed``.

        Raises:
            OSError: the process has ended, or does not answer.
            psutil.Error: the worker is gone already.
        """
        with self._lock:
            if self._process is None or self._process.stdin is None or not self._is_loaded:
                raise BrokenPipeError("The preloader does not run")
            self._process.stdin.write(json.dumps([str(folder), str(printed)]).encode() + b"\n")
            self._process.stdin.flush()
            end = time.monotonic() + _FORK_SECONDS
            while str(folder) not in self._pids:
                if time.monotonic() > end or not self._read(0.1):
                    self.close()
                    raise BrokenPipeError("The preloader does not answer")
            pid = self._pids.pop(str(folder))
        return WorkerProcess(psutil.Process(pid), _Forked(self, pid))

    def exit_code(self, pid: int) -> int | None:
        """Return how a worker ended; None while it runs.

        Raises:
            ChildProcessError: this process ended before the worker did.
        """
        with self._lock:
            may_tell = self._read(0.0)
            if pid not in self._exit_codes and not (may_tell and pid in self._running):
                raise ChildProcessError(f"Nobody knows how worker {pid} ended")
            return self._exit_codes.get(pid)

    def close(self) -> None:
        """End the process; workers that it started go on."""
        with self._lock:
            process, self._process = self._process, None
            if process is not None:
                process.kill()
                process.communicate()

    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _launch(self) -> None:
        self.close()
        self._started, self._is_loaded, self._rest = time.monotonic(), False, b""
        self._running.clear()
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(list(self._command), env=worker_environment(), **pipes, **own_group())

    def _read(self, seconds: float) -> bool:
        """Take in what the process has said, waiting at most so long, and return whether more may come."""
        if self._process is None or self._process.stdout is None:
            return False
        descriptor = self._process.stdout.fileno()
        while select.select([descriptor], [], [], seconds)[0]:
            data = os.read(descriptor, _READ_BYTES)
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._hear(*json.loads(line))
            seconds = 0.0
        return True

    def _hear(self, what: str, *details: Any) -> None:
        if what == "ready":
            self._is_loaded = True
        elif what == "started":
            folder, pid = details
            self._exit_codes.pop(pid, None)  # of an earlier process with this number
            self._running.add(pid)
            self._pids[folder] = pid
        elif what == "ended":
            pid, code = details
            self._running.discard(pid)
            self._exit_codes[pid] = code


class _Forked:
    """How a worker of the preloader ended, as `subprocess.Popen` tells it of its own."""

    def __init__(self, preloader: Preloader, pid: int) -> None:
        self._preloader, self._pid = preloader, pid

    def poll(self) -> int | None:
        return self._preloader.exit_code(self._pid)

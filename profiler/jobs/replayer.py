"""Questions about long recordings -> their answers, found by one worker process that can be left at any time."""

from __future__ import annotations

import atexit
import pickle
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.analysis.blocks import Lane
from profiler.analysis.replays import Question
from profiler.errors import JobFailed, SpecError
from profiler.jobs.process import how_it_ended, worker_environment
from profiler.platform_calls import own_group

_COMMAND = (sys.executable, "-m", "profiler.jobs.replay_worker")
_KEPT = 500
"""Answers that are remembered; the largest are maps of segments, some MB."""
_WAIT_SECONDS = 0.2
_FRUGAL = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Arrow's own pool keeps what a recording took while it was read: a third of the worker's memory."""


@dataclass(frozen=True)
class Request:
    """A question about one memory of a recording."""

    path: Path
    """The recording's file."""
    recording_id: str
    lane: Lane | None
    """None: the default one."""
    question: Question


@dataclass(frozen=True)
class Answer:
    """What was asked for."""

    value: Any


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer."""

    text: str
    is_bug: bool


Message = float | Answer | Refusal
"""What the worker says; a number is how far it is, 0 to 1."""


class Replayer:
    """Asks a worker, one question at a time; what was answered is remembered.

    The worker keeps the recording of the last question, and ends by itself when nobody asks for some minutes.

    Args:
        command: what is started; it reads requests and writes messages.
    """

    def __init__(self, command: Sequence[str] = _COMMAND) -> None:
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None
        self._kept: OrderedDict[Request, Any] = OrderedDict()

    def __contains__(self, request: Request) -> bool:
        """Return whether a request was answered before."""
        return request in self._kept

    def ask(self, request: Request, progress: Callable[[float], None] | None = None) -> Any:
        """Return the answer to a request, as `profiler.analysis.replays.Replays.answer` gives it.

        Args:
            request: about a recording.
            progress: called some times a second with the share that is done, also while another's question is answered. What it raises
                ends the work, and is raised here.

        Raises:
            SpecError: the question cannot be answered.
            JobFailed: the worker crashed or was killed.
        """
        tell = progress or _nothing
        while not self._lock.acquire(timeout=_WAIT_SECONDS):
            tell(0.0)
        try:
            if request not in self._kept:
                self._kept[request] = self._answer(request, tell)
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return self._kept[request]
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the worker; the next question starts another."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            worker.communicate()
        atexit.unregister(self.close)

    def _answer(self, request: Request, tell: Callable[[float], None]) -> Any:
        try:
            message = self._converse(self._started(), request, tell)
        except BaseException:  # the page was left, or the worker is gone: nobody waits for the rest of its work
            self.close()
            raise
        if isinstance(message, Answer):
            return message.value
        if message.is_bug:
            raise JobFailed(f"The recording could not be replayed: {message.text}. This is a bug of Headroom; please report it.")
        raise SpecError(message.text)

    def _converse(self, worker: subprocess.Popen[bytes], request: Request, tell: Callable[[float], None]) -> Answer | Refusal:
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            pickle.dump(request, worker.stdin)
            worker.stdin.flush()
            while isinstance(message := _read(worker.stdout), float):
                tell(message)
        except (EOFError, OSError, pickle.UnpicklingError):
            worker.kill()
            raise JobFailed(f"The recording could not be replayed. {how_it_ended(worker.wait(), '')}") from None
        return message

    def _started(self) -> subprocess.Popen[bytes]:
        if self._worker is None or self._worker.poll() is not None:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._worker = subprocess.Popen(list(self._command), env=worker_environment() | _FRUGAL, **pipes, **own_group())
            atexit.register(self.close)
        return self._worker


def _read(stream: Any) -> Message:
    message: Message = pickle.load(stream)  # noqa: S301  # of the worker that this process started, about a file that this process reads
    return message


def _nothing(share: float) -> None:
    del share

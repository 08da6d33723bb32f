"""Questions of the compression lab -> what workers find: one after the other, each in a process of its own, kept by who asks.

The caller needs no torch. `profiler.jobs.experiments` asks about models, `profiler.jobs.facts` about this machine.
"""

from __future__ import annotations

import atexit
import json
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from profiler.errors import HeadroomError, JobFailed, SpecError
from profiler.jobs.process import WorkerProcess, how_it_ended, last_words
from profiler.jobs.run import Limits, RunState
from profiler.units import GIB, format_bytes

COMMAND = (sys.executable, "-m", "profiler.jobs.lab_worker")
LIMITS = Limits(memory_bytes=12 * GIB, seconds=1800)
POLL_SECONDS = 0.1
_END_SECONDS = 5.0
Found = TypeVar("Found")


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Asked(Generic[Found]):
    """A question, and what becomes of its answer."""

    title: str
    question: Callable[[], Mapping[str, Any]]
    """Returns what the worker is told when its turn comes, as plain data: its ``kind`` is a name of `profiler.jobs.lab_worker.ANSWERS`."""
    find: Callable[[], Found | None]
    """Returns what is kept of an equal question; raises a HeadroomError where it cannot be asked at all."""
    take: Callable[[Any, Path], Found]
    """Turns the worker's answer, and the files that it left in its folder, into what was found, and keeps it; raises a HeadroomError."""
    check: Callable[[], None] = _nothing
    """Raises a HeadroomError where it cannot be answered here, such as without a package."""


@dataclass(frozen=True, kw_only=True)
class LabStatus(Generic[Found]):
    """A run at one instant, as a page or the command line shows it."""

    run_id: str
    title: str
    state: RunState
    phase: str = ""
    share: float = 0.0
    """How much of it is done, 0 to 1."""
    seconds: float = 0.0
    """How long it has run, or ran."""
    rss_bytes: int = 0
    message: str = ""
    """Why there is no result."""
    refused: bool = False
    """What was asked is not possible here, such as where a package is missing."""
    from_store: bool = False
    result: Found | None = None


@dataclass
class _Run:
    asked: Asked[Any]
    status: LabStatus[Any]
    cancelled: threading.Event = field(default_factory=threading.Event)
    watch: threading.Thread | None = None


class LabRuns:
    """Has questions answered, so many at a time; each waits for its turn in a thread.

    Args:
        slots: how many workers at a time; more than one makes times unreliable.
        command: what is started with the path of a run's folder.
        limits: when to end one.
    """

    def __init__(self, *, slots: int = 1, command: Sequence[str] = COMMAND, limits: Limits = LIMITS) -> None:
        self._slots = threading.Semaphore(slots)
        self._command, self._limits = tuple(command), limits
        self._runs: dict[str, _Run] = {}
        atexit.register(self.close)

    def ask(self, asked: Asked[Found], *, fresh: bool = False) -> LabStatus[Found]:
        """Start to answer a question, or return at once what is kept of an equal one.

        Args:
            asked: what to find.
            fresh: find it again in any case.

        Raises:
            HeadroomError: it cannot be answered here; the sentence says why.
        """
        asked.check()
        kept, run_id = asked.find(), uuid.uuid4().hex[:12]
        status: LabStatus[Found] = LabStatus(run_id=run_id, title=asked.title, state=RunState.QUEUED)
        if kept is not None and not fresh:
            status = replace(status, state=RunState.DONE, share=1.0, from_store=True, result=kept)
        self._runs[run_id] = run = _Run(asked, status)
        if not status.from_store:
            run.watch = threading.Thread(target=self._watch, args=(run,), daemon=True)
            run.watch.start()
        return status

    def status(self, run_id: str) -> LabStatus[Any]:
        """Return where a run stands.

        Raises:
            SpecError: there is no such run.
        """
        if run_id not in self._runs:
            raise SpecError(f"There is no experiment {run_id[:40]!r} in progress here. Results are kept; run it again where there is none.")
        return self._runs[run_id].status

    def cancel(self, run_id: str) -> None:
        """End a run; nothing happens where it has ended."""
        if run_id in self._runs:
            self._runs[run_id].cancelled.set()

    def close(self) -> None:
        """End all runs and wait for the ends; called when the process exits."""
        atexit.unregister(self.close)
        for run_id in list(self._runs):
            self.cancel(run_id)
        for run in list(self._runs.values()):
            if run.watch is not None:
                run.watch.join(timeout=_END_SECONDS)

    def _watch(self, run: _Run) -> None:
        while not self._slots.acquire(timeout=POLL_SECONDS):
            if run.cancelled.is_set():
                _tell(run, state=RunState.CANCELLED)
                return
        try:
            with tempfile.TemporaryDirectory(prefix="headroom-") as name:
                self._work(run, Path(name))
        except HeadroomError as error:
            _tell(run, state=RunState.FAILED, message=str(error), refused=isinstance(error, SpecError))
        except OSError as error:
            _tell(run, state=RunState.FAILED, message=f"It could not be measured: {error}.")
        finally:
            self._slots.release()

    def _work(self, run: _Run, folder: Path) -> None:
        (folder / "question.json").write_text(json.dumps(run.asked.question()), encoding="utf-8")
        began = time.monotonic()
        process = WorkerProcess.start([*self._command, str(folder)], folder / "stderr.txt")
        try:
            while process.running() and not run.cancelled.is_set():
                rss, seconds = process.rss_bytes(), time.monotonic() - began
                _tell(run, state=RunState.RUNNING, rss_bytes=rss, seconds=seconds, **_progress(folder))
                self._check(rss, seconds)
                time.sleep(POLL_SECONDS)
        finally:
            process.sweep()
            process.wait(1.0)
        seconds = time.monotonic() - began
        if run.cancelled.is_set():
            _tell(run, state=RunState.CANCELLED, seconds=seconds)
            return
        found = run.asked.take(_answer(folder, process), folder)
        _tell(run, state=RunState.DONE, share=1.0, phase="", seconds=seconds, result=found)

    def _check(self, rss_bytes: int, seconds: float) -> None:
        most = self._limits.memory_bytes
        if most is not None and rss_bytes > most:
            raise JobFailed(
                f"The worker used {format_bytes(rss_bytes)}, more than the {format_bytes(most)} that are allowed. Take a smaller model."
            )
        if seconds > self._limits.seconds:
            raise JobFailed(f"The worker took more than the {self._limits.seconds:.0f} s that are allowed. Take fewer training steps.")


def answered(
    runs: LabRuns, asked: Asked[Found], *, fresh: bool = False, progress: Callable[[LabStatus[Found]], None] = lambda status: None
) -> Found:
    """Return what is found, from the store where it is kept; then the runs are closed. What ``progress`` raises ends the work.

    Raises:
        SpecError: it is not possible here.
        JobFailed: the worker gave no result.
    """
    try:
        status = runs.ask(asked, fresh=fresh)
        while not status.state.final:
            progress(status)
            time.sleep(POLL_SECONDS)
            status = runs.status(status.run_id)
    finally:
        runs.close()
    if status.result is None:
        raise (SpecError if status.refused else JobFailed)(status.message or f"{asked.title} was {status.state}.")
    return status.result


def _tell(run: _Run, **changes: Any) -> None:
    run.status = replace(run.status, **changes)


def _progress(folder: Path) -> dict[str, Any]:
    try:
        data = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        return {"phase": str(data["phase"]), "share": float(data["share"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _answer(folder: Path, process: WorkerProcess) -> Any:
    try:
        answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise JobFailed(f"The worker gave no result. {how_it_ended(process.exit_code, last_words(folder / 'stderr.txt'))}") from None
    if "refused" in answer:
        raise SpecError(answer["refused"])
    if "failed" in answer:
        raise JobFailed(f"It failed: {answer['failed']}.")
    return answer["result"]

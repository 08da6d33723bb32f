"""Experiments of the compression lab -> their results: each in a worker of its own, one after the other, kept in the store.

The caller needs no torch. A result is found again by the experiment, the versions of the libraries and of Headroom, the weights of the
model, and the machine.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from profiler.compression import lab
from profiler.compression.base import Technique, installed_version, to_install
from profiler.compression.experiment import Experiment
from profiler.compression.result import Result, ResultStore
from profiler.devices import this_machine
from profiler.errors import FormatError, HeadroomError, JobFailed, SpecError
from profiler.jobs.key import versions
from profiler.jobs.process import WorkerProcess, how_it_ended, last_words
from profiler.jobs.run import Limits, RunState
from profiler.spec import canonical_json
from profiler.units import GIB, format_bytes

COMMAND = (sys.executable, "-m", "profiler.jobs.experiment_worker")
LIMITS = Limits(memory_bytes=12 * GIB, seconds=1800)
_POLL_SECONDS = 0.1
_END_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class ExperimentStatus:
    """A run at one instant, as a page or the command line shows it."""

    run_id: str
    experiment: Experiment
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
    key: str = ""
    """Under which the store has the result and the compressed model's file."""
    result: Result | None = None


@dataclass
class _Run:
    experiment: Experiment
    status: ExperimentStatus
    cancelled: threading.Event = field(default_factory=threading.Event)
    watch: threading.Thread | None = None


class Experiments:
    """Runs experiments, so many at a time; each waits for its turn in a thread.

    Args:
        home: the run store's folder; by default ``$HEADROOM_HOME``, else ``.headroom``.
        slots: how many workers at a time; more than one makes times unreliable.
        command: what is started with the path of a run's folder.
        limits: when to end one.
    """

    def __init__(
        self, home: Path | str | None = None, *, slots: int = 1, command: Sequence[str] = COMMAND, limits: Limits = LIMITS
    ) -> None:
        self.store = ResultStore(home)
        self._slots = threading.Semaphore(slots)
        self._command, self._limits = tuple(command), limits
        self._runs: dict[str, _Run] = {}
        atexit.register(self.close)

    def submit(self, experiment: Experiment, *, fresh: bool = False) -> ExperimentStatus:
        """Start an experiment, or return at once what the store has of an equal one.

        Args:
            experiment: what to do.
            fresh: run it in any case.

        Raises:
            SpecError: a package is missing; the sentence says which.
            HeadroomError: the weights of the lab's model are missing or damaged.
        """
        _check_packages(experiment)
        run_id, key = uuid.uuid4().hex[:12], result_key(experiment)
        kept = None if fresh else self.store.find(key)
        state = RunState.DONE if kept else RunState.QUEUED
        status = ExperimentStatus(
            run_id=run_id,
            experiment=experiment,
            state=state,
            key=key,
            share=float(kept is not None),
            from_store=kept is not None,
            result=kept,
        )
        self._runs[run_id] = run = _Run(experiment, status)
        if kept is None:
            run.watch = threading.Thread(target=self._watch, args=(run,), daemon=True)
            run.watch.start()
        return status

    def status(self, run_id: str) -> ExperimentStatus:
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
        while not self._slots.acquire(timeout=_POLL_SECONDS):
            if run.cancelled.is_set():
                _tell(run, state=RunState.CANCELLED)
                return
        try:
            with tempfile.TemporaryDirectory(prefix="headroom-") as name:
                self._work(run, Path(name))
        except HeadroomError as error:
            _tell(run, state=RunState.FAILED, message=str(error), refused=isinstance(error, SpecError))
        except OSError as error:
            _tell(run, state=RunState.FAILED, message=f"The experiment could not be run: {error}.")
        finally:
            self._slots.release()

    def _work(self, run: _Run, folder: Path) -> None:
        (folder / "experiment.json").write_text(json.dumps(run.experiment.to_json()), encoding="utf-8")
        controls = {
            stage: known.quality.loss for stage, one in run.experiment.controls.items() if (known := self.store.find(result_key(one)))
        }
        (folder / "controls.json").write_text(json.dumps(controls), encoding="utf-8")
        began = time.monotonic()
        process = WorkerProcess.start([*self._command, str(folder)], folder / "stderr.txt")
        try:
            while process.running() and not run.cancelled.is_set():
                rss, seconds = process.rss_bytes(), time.monotonic() - began
                _tell(run, state=RunState.RUNNING, rss_bytes=rss, seconds=seconds, **_progress(folder))
                self._check(rss, seconds)
                time.sleep(_POLL_SECONDS)
        finally:
            process.sweep()
            process.wait(1.0)
        seconds = time.monotonic() - began
        if run.cancelled.is_set():
            _tell(run, state=RunState.CANCELLED, seconds=seconds)
            return
        result = _result(folder, process)
        self.store.add(run.status.key, result, folder / "weights")
        _tell(run, state=RunState.DONE, share=1.0, phase="", seconds=seconds, result=result)

    def _check(self, rss_bytes: int, seconds: float) -> None:
        most = self._limits.memory_bytes
        if most is not None and rss_bytes > most:
            raise JobFailed(
                f"The experiment used {format_bytes(rss_bytes)}, more than the {format_bytes(most)} that are allowed. Take a smaller model."
            )
        if seconds > self._limits.seconds:
            raise JobFailed(f"The experiment took more than the {self._limits.seconds:.0f} s that are allowed. Take fewer training steps.")


def measure_in_worker(
    experiment: Experiment,
    home: Path | str | None = None,
    *,
    fresh: bool = False,
    command: Sequence[str] = COMMAND,
    progress: Callable[[ExperimentStatus], None] = lambda status: None,
) -> Result:
    """Return an experiment's result, from the store where an equal one is there; what ``progress`` raises ends the work.

    Raises:
        SpecError: it is not possible here.
        JobFailed: the worker gave no result.
    """
    experiments = Experiments(home, command=command)
    status = experiments.submit(experiment, fresh=fresh)
    try:
        while not status.state.final:
            progress(status)
            time.sleep(_POLL_SECONDS)
            status = experiments.status(status.run_id)
    finally:
        experiments.close()
    if status.result is None:
        raise (SpecError if status.refused else JobFailed)(status.message or f"The experiment was {status.state}.")
    return status.result


def result_key(experiment: Experiment) -> str:
    """Return 24 hexadecimal digits that are equal for experiments whose results are interchangeable on this machine.

    Raises:
        HeadroomError: the weights of the lab's model are missing or damaged.
    """
    machine = this_machine()
    parts = {
        "experiment": experiment.to_json(),
        "weights": lab.MODELS[experiment.model].fingerprint() if experiment.model in lab.MODELS else "",
        "versions": versions() | {name: installed_version(name) for item in experiment.techniques for name in item.needs},
        "host": [machine.host, machine.cpu, machine.num_cores, machine.platform],
    }
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:24]


def _check_packages(experiment: Experiment) -> None:
    """Refuse what needs a package that is not installed."""
    model = lab.MODELS.get(experiment.model)
    items: list[lab.LabModel | Technique] = [*([model] if model else []), *experiment.techniques]
    for item in items:
        if missing := to_install(item.needs):
            raise SpecError(f"{item.label} cannot be measured here. {missing}")


def _tell(run: _Run, **changes: Any) -> None:
    run.status = replace(run.status, **changes)


def _progress(folder: Path) -> dict[str, Any]:
    try:
        data = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        return {"phase": str(data["phase"]), "share": float(data["share"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _result(folder: Path, process: WorkerProcess) -> Result:
    try:
        answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise JobFailed(f"The experiment gave no result. {how_it_ended(process.exit_code, last_words(folder / 'stderr.txt'))}") from None
    if "refused" in answer:
        raise SpecError(answer["refused"])
    if "failed" in answer:
        raise JobFailed(f"The experiment failed: {answer['failed']}.")
    try:
        return Result.from_json(answer["result"])
    except FormatError as error:
        raise JobFailed(str(error)) from error

"""Experiments of the compression lab -> their results, kept in the store. The caller needs no torch.

A result is found again by the experiment, the versions of the libraries and of Headroom, the weights of the model, and the machine.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from profiler.compression import lab
from profiler.compression.base import Technique, installed_version, to_install
from profiler.compression.experiment import Experiment
from profiler.compression.result import Result, ResultStore
from profiler.devices import this_machine
from profiler.errors import FormatError, HeadroomError, JobFailed, SpecError
from profiler.jobs.key import versions
from profiler.jobs.lab_runs import COMMAND, LIMITS, POLL_SECONDS, Asked, LabRuns, LabStatus, answered
from profiler.jobs.run import Limits
from profiler.spec import canonical_json

WORKERS = min(2, this_machine().num_cores)
"""Experiments at a time where there are many: each takes one thread, and more share caches and memory that times depend on."""


class Experiments(LabRuns):
    """Runs experiments, and whatever else is asked of the lab, so many at a time.

    Args:
        home: the run store's folder; by default ``$HEADROOM_HOME``, else ``.headroom``.
        slots: how many workers at a time.
        command: what is started with the path of a run's folder.
        limits: when to end one.
    """

    def __init__(
        self, home: Path | str | None = None, *, slots: int = 1, command: Sequence[str] = COMMAND, limits: Limits = LIMITS
    ) -> None:
        super().__init__(slots=slots, command=command, limits=limits)
        self.store = ResultStore(home)

    def submit(self, experiment: Experiment, *, fresh: bool = False) -> LabStatus[Result]:
        """Start an experiment, or return at once what the store has of an equal one.

        Args:
            experiment: what to do.
            fresh: run it in any case.

        Raises:
            SpecError: a package is missing; the sentence says which.
            HeadroomError: the weights of the lab's model are missing or damaged.
        """
        return self.ask(asked_of(experiment, self.store), fresh=fresh)


def asked_of(experiment: Experiment, store: ResultStore) -> Asked[Result]:
    """Return the question that an experiment is; its answer goes to a store, under the key that it has when the worker is told."""
    keys: list[str] = []
    return Asked(
        title=experiment.title,
        question=partial(_question, experiment, store, keys),
        find=lambda: store.find(result_key(experiment)),
        take=partial(_take, store, keys),
        check=partial(_check_packages, experiment),
    )


def measure_in_worker(
    experiment: Experiment,
    home: Path | str | None = None,
    *,
    fresh: bool = False,
    command: Sequence[str] = COMMAND,
    progress: Callable[[LabStatus[Result]], None] = lambda status: None,
) -> Result:
    """Return an experiment's result, from the store where an equal one is there; what ``progress`` raises ends the work.

    Raises:
        SpecError: it is not possible here.
        JobFailed: the worker gave no result.
    """
    experiments = Experiments(home, command=command)
    return answered(experiments, asked_of(experiment, experiments.store), fresh=fresh, progress=progress)


def measure_each(
    experiments: Iterable[Experiment],
    home: Path | str | None = None,
    *,
    workers: int = WORKERS,
    fresh: bool = False,
    command: Sequence[str] = COMMAND,
    progress: Callable[[LabStatus[Result]], None] = lambda status: None,
) -> Iterator[tuple[Experiment, Result | HeadroomError]]:
    """Yield experiments as they end, each with its result or with why there is none; they begin in their order.

    Args:
        experiments: what to measure.
        home: the run store's folder, as in `Experiments`.
        workers: how many at a time; times stay comparable, since each is taken in turns with the untouched model's.
        fresh: measure also what the store has.
        command: what is started with the path of a run's folder.
        progress: called now and then with where each stands; what it raises ends the work.
    """
    runs, waiting, going = Experiments(home, slots=workers, command=command), deque(experiments), dict[Experiment, str]()
    try:
        while waiting or going:
            while waiting and len(going) < workers:
                one = waiting.popleft()
                try:
                    going[one] = runs.submit(one, fresh=fresh).run_id
                except HeadroomError as error:
                    yield one, error
            for one, status in [(one, runs.status(run_id)) for one, run_id in going.items()]:
                progress(status)
                if status.state.final:
                    del going[one]
                    yield one, status.result or JobFailed(status.message or f"{one.title} was {status.state}.")
            time.sleep(POLL_SECONDS)
    finally:
        runs.close()


def result_key(experiment: Experiment) -> str:
    """Return 24 hexadecimal digits that are equal for experiments whose results are interchangeable on this machine.

    The lab's own weights count by their digest. SmolLM2's count by the version text of the package that carries them, which is quicker to
    read: a file exchanged within that package is not noticed.

    Raises:
        HeadroomError: the weights of the lab's model are missing or damaged.
    """
    machine = this_machine()
    model = lab.MODELS.get(experiment.model)
    parts = {
        "experiment": experiment.to_json(),
        "weights": model.fingerprint() if model else "",
        "versions": versions() | {name: installed_version(name) for item in _of(experiment) for name in item.needs},
        "host": [machine.host, machine.cpu, machine.num_cores, machine.platform],
    }
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:24]


def _of(experiment: Experiment) -> list[lab.LabModel | Technique]:
    """Return what an experiment is made of: the model, where it is one of the lab's, and the techniques."""
    model = lab.MODELS.get(experiment.model)
    return [*([model] if model else []), *experiment.techniques]


def _check_packages(experiment: Experiment) -> None:
    """Refuse what needs a package that is not installed."""
    for item in _of(experiment):
        if missing := to_install(item.needs):
            raise SpecError(f"{item.label} cannot be measured here. {missing}")


def _question(experiment: Experiment, store: ResultStore, keys: list[str]) -> dict[str, Any]:
    """Return what the worker is told, and note the key it is told under; controls that are known by then need not be trained."""
    keys[:] = [result_key(experiment)]
    known = {stage: found.quality.loss for stage, one in experiment.controls.items() if (found := store.find(result_key(one)))}
    return {"kind": "experiment", "experiment": experiment.to_json(), "controls": known}


def _take(store: ResultStore, keys: Sequence[str], answer: Any, folder: Path) -> Result:
    """Keep a result under the key that was noted: weights may have been replaced while the worker ran."""
    try:
        result = Result.from_json(answer)
    except FormatError as error:
        raise JobFailed(str(error)) from error
    store.add(keys[0], result, folder / "weights")
    return result

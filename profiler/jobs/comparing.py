"""A comparison -> its runs, made by a job manager a few at a time, until every footprint is there.

Nothing waits here: `ComparisonRuns.advance` looks, submits what has room, and returns. A caller that goes away loses nothing, since every
run is kept in the store under its own key; one that comes back finds what is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from profiler.analysis.footprint import Footprint
from profiler.errors import SpecError
from profiler.jobs.key import run_key
from profiler.jobs.manager import JobManager
from profiler.jobs.run import Limits, RunState, RunStatus
from profiler.planner.comparison import Compared, Comparison, Switched
from profiler.spec import Job
from profiler.storage import read_recording

_SUBMITTED_AT_ONCE = 3
"""Two run, one waits: the rest is submitted as these end, so that others' runs have their turn."""
_ATTEMPTS = 2
"""A worker that was lost, such as for want of memory of the machine, gets another try."""
_DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class RunOf:
    """Where one run of a comparison stands."""

    switched: Switched
    job: Job
    state: RunState | None
    """None: not submitted yet."""
    status: RunStatus | None = None
    message: str = ""
    path: Path | None = None
    """The recording."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state is not None and self.state.final


class ComparisonRuns:
    """The runs of one comparison.

    Args:
        manager: runs them.
        comparison: what is compared.
        engine: what runs each.
        owner: who asks.
        limits: of each run.
        read: gives the footprint of a recording file; one that remembers makes a known comparison quick.

    Raises:
        SpecError: the baseline or the waterfall is not possible.
    """

    def __init__(
        self,
        manager: JobManager,
        comparison: Comparison,
        engine: str,
        *,
        owner: str | None = None,
        limits: Limits = _DEFAULT_LIMITS,
        read: Callable[[Path], Footprint] | None = None,
    ) -> None:
        self.comparison, self.engine = comparison, engine
        self._manager, self._owner, self._limits, self._read = manager, owner, limits, read or footprint_of
        self._jobs = comparison.jobs()
        self._keys = {switched: run_key(job, engine) for switched, job in self._jobs.items()}
        self._run_ids: dict[Switched, str] = {}
        self._num_attempts: dict[Switched, int] = dict.fromkeys(self._jobs, 0)
        self._runs: dict[Switched, RunOf] = {
            switched: RunOf(switched=switched, job=job, state=None) for switched, job in self._jobs.items()
        }
        self._is_cancelled = False

    @property
    def runs(self) -> Mapping[Switched, RunOf]:
        """Every run as `advance` saw it last."""
        return self._runs

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return all(run.ended for run in self._runs.values()) or (self._is_cancelled and not self._running())

    def look(self) -> Compared:
        """See where the runs stand without starting any, and return what is known so far."""
        stored = {entry.metadata.key: entry.path for entry in reversed(self._manager.store.ended())}
        for switched, run in list(self._runs.items()):
            if not run.ended:
                self._runs[switched] = self._look(run, stored.get(self._keys[switched]))
        return self.compared()

    def advance(self) -> Compared:
        """Look at what runs, submit what has room, and return what is known so far."""
        self.look()
        asked = [run for switched, run in self._runs.items() if switched in ((), self.comparison.asked)]
        runs = [run for run in asked if not run.ended] or self._runs.values()  # what was asked for has the machine to itself
        waiting = [run.switched for run in runs if run.state is None]
        for switched in waiting[: max(_SUBMITTED_AT_ONCE - len(self._running()), 0)]:
            self._submit(switched)
        return self.compared()

    def compared(self) -> Compared:
        """Return the comparison of the runs that are done, and why others gave no result."""
        paths = {switched: run.path for switched, run in self._runs.items() if run.path is not None}
        return Compared(
            comparison=self.comparison,
            footprints={switched: self._read(path) for switched, path in paths.items()},
            failures={switched: run.message for switched, run in self._runs.items() if run.state is RunState.FAILED},
        )

    def cancel(self, keeping: ComparisonRuns | None = None) -> None:
        """End what this owner had started and start nothing more; what is done stays.

        Args:
            keeping: a comparison that takes the place of this one; what it needs too goes on.
        """
        self._is_cancelled = True
        kept = set(keeping._keys.values()) if keeping else set()
        for switched, run_id in self._run_ids.items():
            status = self._runs[switched].status
            if self._keys[switched] not in kept and status is not None and status.owner == self._owner:
                self._manager.cancel(run_id)

    def _running(self) -> list[Switched]:
        return [switched for switched, run in self._runs.items() if run.state in (RunState.QUEUED, RunState.RUNNING)]

    def _submit(self, switched: Switched) -> None:
        if self._is_cancelled:
            return
        self._num_attempts[switched] += 1
        status = self._manager.submit(self._jobs[switched], owner=self._owner, limits=self._limits, engine=self.engine)
        self._run_ids[switched] = status.run_id
        self._runs[switched] = self._seen(self._runs[switched], status)

    def _look(self, run: RunOf, stored: Path | None) -> RunOf:
        if stored is not None:
            return RunOf(switched=run.switched, job=run.job, state=RunState.DONE, path=stored)
        run_id = self._run_ids.get(run.switched)
        if run_id is None:
            return run
        try:
            return self._seen(run, self._manager.status(run_id))
        except SpecError:  # its folder was cleaned up before anybody looked
            return RunOf(switched=run.switched, job=run.job, state=None)

    def _seen(self, run: RunOf, status: RunStatus) -> RunOf:
        lost = status.lost and status.seconds < self._limits.seconds and self._num_attempts[run.switched] < _ATTEMPTS
        path = status.recording_path if status.state is RunState.DONE else None
        return RunOf(
            switched=run.switched, job=run.job, state=None if lost else status.state, status=status, message=status.message, path=path
        )


@lru_cache(maxsize=256)
def footprint_of(path: Path) -> Footprint:
    """Return the footprint of a recording file; a file of the store never changes.

    Raises:
        FormatError: it is no recording.
    """
    return Footprint.of(read_recording(path))

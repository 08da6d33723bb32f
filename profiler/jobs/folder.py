"""A run <-> the files of its folder, which any process can read while another writes.

``job.json`` what to run, ``state.json`` where it stands (both by the manager); ``progress.json`` and ``outcome.json`` by the worker;
``live.csv`` its memory while it ran; ``stderr.txt`` what it printed; ``cancel`` is there once somebody asked to end it.
Each JSON file is replaced whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from profiler.errors import FormatError, HeadroomError, SpecError, StorageError
from profiler.jobs.run import LivePoint, Order, Outcome, RunState, RunStatus, Standing
from profiler.storage.json_file import write_json
from profiler.tracing.progress import Progress
from profiler.units import MIB

MAX_STDERR_BYTES = 8 * MIB
_MAX_JSON_BYTES = 4 * MIB
_RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{8}")

_T = TypeVar("_T")


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def run_id(self) -> str:
        """The run's name, which links carry."""
        return self.path.name

    def create(self, order: Order, standing: Standing) -> None:
        """Make the folder.

        Raises:
            StorageError: the disk is full or read-only; nothing is left behind.
        """
        try:
            self.path.mkdir(parents=True)
            write_json(self.path / "job.json", order.to_json())
            write_json(self.path / "state.json", asdict(standing))
        except OSError as error:
            self.remove()
            raise StorageError(
                f"{self.path} cannot be written: {error.strerror}. Free space there, or choose another folder (HEADROOM_HOME)."
            ) from error

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def order(self) -> Order:
        """Return what was asked for.

        Raises:
            FormatError: the file is missing or damaged.
        """
        return self._read("job.json", Order.from_json)

    def standing(self) -> Standing:
        """Return where the run stands.

        Raises:
            FormatError: the file is missing or damaged.
        """
        return self._read("state.json", Standing.from_json)

    def write_standing(self, standing: Standing) -> None:
        """Replace where the run stands.

        Raises:
            OSError: the disk is full or went away.
        """
        write_json(self.path / "state.json", asdict(standing))

    def progress(self) -> Progress | None:
        """Return what the worker told last, or None."""
        return self._read_or_none("progress.json", Progress)

    def write_progress(self, progress: Progress) -> None:
        """Replace the worker's progress; on a full disk it stays as it was."""
        try:
            write_json(self.path / "progress.json", asdict(progress))
        except OSError:
            return

    def outcome(self) -> Outcome | None:
        """Return how the worker says it ended, or None."""
        return self._read_or_none("outcome.json", Outcome)

    def write_outcome(self, outcome: Outcome) -> None:
        """Write how the worker ended."""
        write_json(self.path / "outcome.json", asdict(outcome))

    def ask_to_cancel(self) -> None:
        """Leave the mark on which the manager ends the run."""
        (self.path / "cancel").touch()

    @property
    def cancel_asked(self) -> bool:
        """Whether somebody asked to end the run."""
        return (self.path / "cancel").exists()

    @property
    def stderr(self) -> Path:
        """What the worker printed."""
        return self.path / "stderr.txt"

    def bound_stderr(self) -> None:
        """Empty what the worker printed once it is too long; the worker appends, so it goes on from there."""
        try:
            if self.stderr.stat().st_size > MAX_STDERR_BYTES:
                os.truncate(self.stderr, 0)
        except OSError:
            return

    def add_live(self, point: LivePoint) -> None:
        """Append one point of the worker's memory; on a full disk it is left out."""
        allocated = "" if point.allocated_bytes is None else point.allocated_bytes
        try:
            with (self.path / "live.csv").open("a", encoding="ascii") as file:
                file.write(f"{point.t_seconds:.3f},{point.rss_bytes},{allocated}\n")
        except OSError:
            return

    def live(self) -> tuple[LivePoint, ...]:
        """Return the worker's memory so far; a line that is half-written is left out."""
        try:
            lines = (self.path / "live.csv").read_text(encoding="ascii").splitlines(keepends=True)
        except OSError:
            return ()
        rows = [line.strip().split(",") for line in lines if line.endswith("\n")]
        return tuple(LivePoint(float(t), int(rss), int(allocated) if allocated else None) for t, rss, allocated in rows)

    def status(self, standing: Standing, *, with_live: bool, queue_position: int | None) -> RunStatus:
        """Return what is known about the run.

        Args:
            standing: where it stands.
            with_live: read the points of its memory too.
            queue_position: 1 is next.

        Raises:
            FormatError: its files are damaged.
        """
        order, progress, started = self.order(), self.progress(), standing.started
        num_steps = progress.num_steps if progress else order.job.workload.steps + order.job.workload.warmup_steps
        recording = Path(standing.recording) if standing.recording else None
        outcome = self.outcome() if standing.state is RunState.FAILED else None
        return RunStatus(
            run_id=self.run_id,
            state=standing.state,
            job=order.job,
            engine=order.engine,
            owner=order.owner,
            phase=progress.phase if progress else "starting" if standing.state is RunState.RUNNING else "",
            step=num_steps if standing.state is RunState.DONE else progress.step if progress else 0,
            num_steps=num_steps,
            started=started,
            seconds=max(0.0, (standing.ended or time.time()) - started) if started else 0.0,
            live=self.live() if with_live else (),
            message=standing.message,
            recording_path=recording if recording and recording.exists() else None,
            recording_id=standing.recording_id,
            from_store=standing.from_store,
            queue_position=queue_position,
            refused=outcome is not None and outcome.refused,
            lost=standing.state is RunState.FAILED and outcome is None,
        )

    def _read(self, name: str, parse: Callable[[dict[str, Any]], _T]) -> _T:
        path = self.path / name
        try:
            if path.stat().st_size > _MAX_JSON_BYTES:
                raise ValueError(f"it has more than {_MAX_JSON_BYTES:,} bytes")
            return parse(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, HeadroomError) as error:
            raise FormatError(
                f"Run {self.run_id}: {name} is missing or damaged ({error}). Remove {self.path} or run the job again."
            ) from error

    def _read_or_none(self, name: str, kind: type[_T]) -> _T | None:
        try:
            return self._read(name, lambda data: kind(**data))
        except FormatError:
            return None


def find_folder(jobs: Path, run_id: str) -> RunFolder:
    """Return the folder of a run below ``jobs``.

    Raises:
        SpecError: there is no such run.
    """
    folder = RunFolder(jobs / run_id)
    if not _RUN_ID.fullmatch(run_id) or not folder.path.is_dir():
        raise SpecError(f"There is no run {run_id[:40]!r} here. Runs that are kept are listed on the Profile page.")
    return folder


def all_folders(jobs: Path) -> list[RunFolder]:
    """Return the folders of all runs below ``jobs``."""
    return [RunFolder(path) for path in jobs.glob("*-*") if _RUN_ID.fullmatch(path.name)]

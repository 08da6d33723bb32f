"""Jobs -> worker processes: a queue, a few at once, each watched until it ends.

All that is known about a run is in the files of its folder (`profiler.jobs.folder`), so a page, a second tab, another process and the next
server see the same. One background thread starts and watches the workers of this manager.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from profiler.errors import FormatError, HeadroomError, JobFailed
from profiler.jobs.folder import RunFolder, all_folders, find_folder
from profiler.jobs.key import run_key
from profiler.jobs.process import WorkerProcess, find_process
from profiler.jobs.run import CAPTURE, SIMULATING, Ending, Limits, Order, RunState, RunStatus, Standing
from profiler.jobs.settle import ending_of_lost, settle
from profiler.jobs.warm import Preloader
from profiler.jobs.watch import Watch
from profiler.platform_calls import can_fork
from profiler.spec import Job
from profiler.storage import RunStore

TICK_SECONDS = 0.1
KEEP_RUNS = 200
"""Folders of ended runs that are kept; their recordings stay in the run store regardless."""
_WORKER_COMMAND = (sys.executable, "-m", "profiler.jobs.worker")
_DEFAULT_LIMITS = Limits()
_open_managers: set[str] = set()


class JobManager:
    """Runs jobs in worker processes and keeps their results in the run store.

    Args:
        home: the folder of the run store; by default ``$HEADROOM_HOME``, else ``.headroom``.
        max_running: measured runs at once.
        max_simulating: simulated runs at once, beside those.
        max_queued: runs that may wait.
        worker_command: what is started with a run's folder as its last argument.
        preloader: what simulations are forked from; by default one of the usual workers, where processes can fork.
    """

    def __init__(
        self,
        home: Path | str | None = None,
        *,
        max_running: int = 1,
        max_simulating: int = 2,
        max_queued: int = 20,
        worker_command: Sequence[str] = _WORKER_COMMAND,
        preloader: Preloader | None = None,
    ) -> None:
        self.store = RunStore(home)
        self._jobs = self.store.home.resolve() / "jobs"
        self._max_running, self._max_simulating, self._max_queued = max_running, max_simulating, max_queued
        self._command = tuple(worker_command)
        self._preloader = preloader or (Preloader() if self._command == _WORKER_COMMAND and can_fork() else None)
        self._name = secrets.token_hex(8)
        self._me = psutil.Process()
        self._lock = threading.RLock()
        self._queue: builtins.list[RunFolder] = []
        self._watches: dict[str, Watch] = {}
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        _open_managers.add(self._name)
        atexit.register(self.close)
        self._take_over()

    def submit(
        self, job: Job, *, owner: str | None = None, limits: Limits = _DEFAULT_LIMITS, engine: str = CAPTURE, fresh: bool = False
    ) -> RunStatus:
        """Put a job in the queue and return its run; one that waits or runs here under the same key is joined.

        Args:
            job: what to run.
            owner: who asks, in the caller's words.
            limits: when to end it.
            engine: what runs it.
            fresh: run it even if an equal run is in the store, runs or waits, which otherwise is the answer at once.

        Raises:
            JobFailed: too many runs wait already, or the manager is closed.
            StorageError: the store is read-only or full.
        """
        key = run_key(job, engine)
        with self._lock:
            if not fresh and (same := self._same_run(key)):
                return self.status(same.run_id)
            folder = RunFolder(self._jobs / f"{job.id[:8]}-{secrets.token_hex(4)}")
            stored = None if fresh else self.store.find_key(key)
            path = (stored.path if stored else self.store.new_path(folder.run_id)).resolve()
            order = Order(job=job, key=key, engine=engine, recording=path, submitted=time.time(), owner=owner, limits=limits)
            if stored:
                message = f"Answered from the store: this run was recorded {stored.metadata.created}."
                standing = replace(self._standing(RunState.DONE), message=message, from_store=True)
                folder.create(order, replace(standing, recording=str(path), recording_id=stored.metadata.id))
            else:
                self._check_room()
                folder.create(order, self._standing(RunState.QUEUED))
                self._queue.append(folder)
                self._go_on()
        return self.status(folder.run_id)

    def status(self, run_id: str) -> RunStatus:
        """Return where a run stands.

        Raises:
            SpecError: there is no such run.
            FormatError: its files are damaged.
        """
        return self._describe(find_folder(self._jobs, run_id), with_live=True)

    def list(self) -> builtins.list[RunStatus]:
        """Return all runs, newest first, without their live points; damaged ones are left out."""
        found = []
        for folder in all_folders(self._jobs):
            try:
                found.append((folder.order().submitted, self._describe(folder, with_live=False)))
            except FormatError:
                continue
        return [status for _, status in sorted(found, key=lambda pair: pair[0], reverse=True)]

    def cancel(self, run_id: str) -> RunStatus:
        """Ask a run to end, with all processes it started; one that has ended stays as it is.

        Raises:
            SpecError: there is no such run.
        """
        status = self.status(run_id)
        if not status.state.final:
            find_folder(self._jobs, run_id).ask_to_cancel()
            self._wake.set()
        return status

    def warm_up(self) -> None:
        """Load the libraries for the next simulation now, because somebody is about to ask for one; returns at once."""
        if self._preloader is not None and not self._closed:
            self._preloader.prepare()

    def close(self) -> None:
        """End all runs of this manager; called when the process exits."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            watches = builtins.list(self._watches.values())
            self._queue.clear()
            self._watches.clear()
        _open_managers.discard(self._name)
        atexit.unregister(self.close)
        self._wake.set()
        for watch in watches:
            watch.process.ask_to_end()
        for watch in watches:
            watch.process.wait(1.0)
            watch.process.sweep()
            watch.process.wait(1.0)
        if self._preloader is not None:
            self._preloader.close()
        if self._thread is not None:
            self._thread.join(timeout=5)

    # What the background thread does.

    def _work(self) -> None:
        while not self._closed:
            self._wake.clear()
            with self._lock:
                self._drop_cancelled()
                self._start_next()
                watches = builtins.list(self._watches.values())
            for watch in watches:
                self._look(watch)
            self._wake.wait(TICK_SECONDS if watches or self._queue else None)

    def _drop_cancelled(self) -> None:
        for folder in [folder for folder in self._queue if folder.cancel_asked]:
            self._queue.remove(folder)
            _settle_if_readable(folder, Ending(RunState.CANCELLED, "Cancelled before it started."))

    def _start_next(self) -> None:
        for folder in builtins.list(self._queue):
            try:
                order = folder.order()
            except FormatError:
                self._queue.remove(folder)
                continue
            if self._has_room(order) and not (_can_be_forked(order) and self._preloader and self._preloader.prepare()):
                self._queue.remove(folder)
                self._start(folder, order)

    def _has_room(self, order: Order) -> bool:
        simulates = order.engine in SIMULATING
        num_alike = sum((watch.order.engine in SIMULATING) == simulates for watch in self._watches.values())
        return num_alike < (self._max_simulating if simulates else self._max_running)

    def _start(self, folder: RunFolder, order: Order) -> None:
        process = None
        try:
            started = time.time()
            process = self._worker(folder, order)
            running = replace(self._standing(RunState.RUNNING), started=started)
            folder.write_standing(replace(running, worker_pid=process.pid, worker_created=process.created))
            self._watches[folder.run_id] = Watch(folder, order, process, started)
        except (OSError, psutil.Error, HeadroomError) as error:
            if process is not None:
                process.sweep()
            _settle_if_readable(folder, Ending(RunState.FAILED, f"The worker could not be started: {error}"))

    def _worker(self, folder: RunFolder, order: Order) -> WorkerProcess:
        if self._preloader and _can_be_forked(order):
            with contextlib.suppress(OSError, psutil.Error):  # whatever became of the preloader: there is the long way
                return self._preloader.fork(folder.path, folder.stderr)
        return WorkerProcess.start([*self._command, str(folder.path)], folder.stderr)

    def _look(self, watch: Watch) -> None:
        try:
            ending = watch.look()
        except (OSError, psutil.Error) as error:
            watch.process.sweep()
            ending = Ending(RunState.FAILED, f"The run could not be watched and was ended: {error}.")
        if ending is None or watch.folder.run_id not in self._watches:
            return
        # Not under the lock: making a recording of what a long run left can take seconds, and pages ask meanwhile.
        _settle_if_readable(watch.folder, ending)
        with self._lock:
            self._watches.pop(watch.folder.run_id, None)
        self._wake.set()

    # Runs that an earlier server left.

    def _take_over(self) -> None:
        """Watch on the workers that are still running, settle the other runs, and forget the oldest ended ones."""
        ended = []
        for folder in all_folders(self._jobs):
            try:
                standing, order = self._settle_if_lost(folder), folder.order()
            except FormatError:
                continue
            if standing.state.final:
                ended.append((order.submitted, folder))
            elif not self._is_managed(folder, standing):
                self._adopt(folder, order, standing)
        for _, folder in sorted(ended, key=lambda pair: pair[0], reverse=True)[KEEP_RUNS:]:
            folder.remove()

    def _adopt(self, folder: RunFolder, order: Order, standing: Standing) -> None:
        process = WorkerProcess.adopt(standing.worker_pid or 0, standing.worker_created or 0)
        if process is None:
            return
        me = self._standing(RunState.RUNNING)
        try:
            folder.write_standing(replace(standing, manager=me.manager, manager_pid=me.manager_pid, manager_created=me.manager_created))
        except OSError:
            return
        with self._lock:
            self._watches[folder.run_id] = Watch(folder, order, process, standing.started or time.time())
            self._go_on()

    def _settle_if_lost(self, folder: RunFolder) -> Standing:
        """Return where the run stands, after ending it in the files if nobody is at it any more."""
        with self._lock:
            standing = folder.standing()
            if standing.state.final or self._is_managed(folder, standing):
                return standing
            if standing.worker_pid and find_process(standing.worker_pid, standing.worker_created or 0):
                return standing
            return settle(folder, ending_of_lost(standing, folder.outcome()))

    def _is_managed(self, folder: RunFolder, standing: Standing) -> bool:
        """Return whether a living manager, this or another, has the run in its hands."""
        if standing.manager == self._name:
            return folder.run_id in self._watches or folder in self._queue
        if standing.manager_pid == self._me.pid:
            return standing.manager in _open_managers
        return find_process(standing.manager_pid, standing.manager_created) is not None

    # The small print.

    def _describe(self, folder: RunFolder, *, with_live: bool) -> RunStatus:
        standing = self._settle_if_lost(folder)
        with self._lock:
            position = self._queue.index(folder) + 1 if folder in self._queue else None
        return folder.status(standing, with_live=with_live, queue_position=position)

    def _go_on(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="headroom-jobs", daemon=True)
            self._thread.start()
        self._wake.set()

    def _check_room(self) -> None:
        if self._closed:
            raise JobFailed("The server is stopping, so nothing new is started. Submit the job again once it is back.")
        if len(self._queue) >= self._max_queued:
            raise JobFailed(f"{len(self._queue)} runs wait already, as many as are allowed. Wait until one ends, or cancel one.")

    def _same_run(self, key: str) -> RunFolder | None:
        """Return the run that waits or runs here under this key, unless it is being cancelled or has just ended."""
        here = [*self._queue, *(watch.folder for watch in self._watches.values())]
        same = (folder for folder in here if folder.order().key == key and not folder.cancel_asked)
        return next((folder for folder in same if not folder.standing().state.final), None)

    def _standing(self, state: RunState) -> Standing:
        return Standing(state=state, manager=self._name, manager_pid=self._me.pid, manager_created=self._me.create_time())


def _can_be_forked(order: Order) -> bool:
    """Tell whether a worker may be a fork: one that is measured shares no memory with others, and CUDA does not outlive a fork."""
    return order.engine in SIMULATING


def _settle_if_readable(folder: RunFolder, ending: Ending) -> None:
    """Settle a run; one whose folder somebody removed has nobody left to tell."""
    try:
        settle(folder, ending)
    except FormatError:
        return

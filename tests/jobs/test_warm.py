"""Workers that are forked from a process with the libraries loaded; here one that loads nothing and whose engine is the fake one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from profiler.jobs.manager import JobManager
from profiler.jobs.run import SIMULATE, RunState, RunStatus
from profiler.jobs.warm import Preloader
from profiler.platform_calls import can_fork
from profiler.spec import Job, Model
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not can_fork(), reason="Workers are forked on Linux only.")
COMMAND = (sys.executable, "-m", "tests.jobs.fake_preloader")
MakeManager = Callable[..., JobManager]


@pytest.fixture
def make_manager(home: Path) -> Iterator[MakeManager]:
    made = []

    def make(command: tuple[str, ...] = COMMAND) -> JobManager:
        cold = (sys.executable, "-m", "tests.jobs.fake_worker")
        made.append(JobManager(home, worker_command=cold, preloader=Preloader(command)))
        return made[-1]

    yield make
    for manager in made:
        manager.close()


@pytest.fixture
def manager(make_manager: MakeManager) -> JobManager:
    return make_manager()


def submitted(manager: JobManager, act: str) -> RunStatus:
    return manager.submit(Job(model=Model(name=act)), engine=SIMULATE, fresh=True)


def wait_until(manager: JobManager, run: RunStatus, condition: Callable[[RunStatus], object]) -> RunStatus:
    end = time.monotonic() + 20
    while not condition(status := manager.status(run.run_id)):
        assert time.monotonic() < end, f"it did not come to that: {status}"
        time.sleep(0.02)
    return status


def ended(manager: JobManager, run: RunStatus) -> RunStatus:
    return wait_until(manager, run, lambda status: status.state.final)


def folder(manager: JobManager, run: RunStatus) -> Path:
    return manager.store.home / "jobs" / run.run_id


def worker_of(manager: JobManager, run: RunStatus) -> psutil.Process:
    wait_until(manager, run, lambda status: status.step == 1)
    return psutil.Process(json.loads((folder(manager, run) / "state.json").read_text())["worker_pid"])


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_for_death(process: psutil.Process) -> None:
    end = time.monotonic() + 10
    while is_alive(process):
        assert time.monotonic() < end, f"{process} lives on"
        time.sleep(0.02)


def test_workers_are_forks_of_one_process_each_in_a_session_of_its_own(manager: JobManager) -> None:
    workers = [worker_of(manager, submitted(manager, name)) for name in ("sleep", "and sleep")]

    assert workers[0].ppid() == workers[1].ppid() != os.getpid()
    assert [os.getsid(worker.pid) for worker in workers] == [worker.pid for worker in workers]


def test_a_forked_worker_leaves_its_recording_and_another_can_follow(manager: JobManager) -> None:
    assert [ended(manager, submitted(manager, "quick")).state for _ in range(2)] == [RunState.DONE] * 2


@pytest.mark.parametrize(
    ("act", "says"),
    [
        ("refuse", "heads=5"),
        ("stumble", "ZeroDivisionError: the batch was"),
        ("die", "The worker was killed (SIGKILL)."),
        ("crash", "The worker crashed (SIGSEGV)."),
        ("leave", "exit code 7 and no result. Its last words: I had enough"),
    ],
)
def test_how_a_fork_ended_is_known_and_the_next_one_starts(manager: JobManager, act: str, says: str) -> None:
    status = ended(manager, submitted(manager, act))

    assert status.state is RunState.FAILED
    assert says in status.message
    assert ended(manager, submitted(manager, "quick")).state is RunState.DONE


def test_cancel_ends_a_fork_with_its_children(manager: JobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler.jobs.process.GRACE_SECONDS", 0.2)
    run = submitted(manager, "father")
    path = folder(manager, run) / "pids.txt"
    wait_until(manager, run, lambda status: path.exists())
    processes = [psutil.Process(int(pid)) for pid in path.read_text().split()]
    manager.cancel(run.run_id)

    assert ended(manager, run).state is RunState.CANCELLED
    for process in processes:
        wait_for_death(process)


def test_two_simulations_run_at_once_and_a_third_waits(manager: JobManager) -> None:
    runs = [submitted(manager, name) for name in ("sleep", "sleep", "sleep")]
    for run in runs[:2]:
        wait_until(manager, run, lambda status: status.step == 1)

    assert manager.status(runs[2].run_id).state is RunState.QUEUED


def test_a_measured_run_is_not_forked_and_does_not_wait_for_simulations(manager: JobManager) -> None:
    for _ in range(2):
        submitted(manager, "sleep")
    measured = worker_of(manager, manager.submit(Job(model=Model(name="sleep"))))

    assert measured.ppid() == os.getpid()


def test_where_the_preloader_fails_workers_start_the_long_way(make_manager: MakeManager) -> None:
    manager = make_manager((sys.executable, "-c", "raise SystemExit(1)"))

    assert ended(manager, submitted(manager, "quick")).state is RunState.DONE


def test_a_preloader_that_was_killed_takes_nothing_with_it_and_the_next_run_has_another(manager: JobManager) -> None:
    run = submitted(manager, "sleep")
    worker = worker_of(manager, run)
    first = psutil.Process(worker.ppid())
    first.kill()
    wait_for_death(first)
    other = worker_of(manager, submitted(manager, "and sleep"))

    assert manager.status(run.run_id).state is RunState.RUNNING
    assert other.ppid() not in (first.pid, os.getpid())
    worker.kill()
    assert ended(manager, run).message.startswith("The worker ended without a result.")


def test_closing_the_manager_ends_the_preloader(make_manager: MakeManager) -> None:
    manager = make_manager()
    preloader = psutil.Process(worker_of(manager, submitted(manager, "sleep")).ppid())
    manager.close()

    wait_for_death(preloader)


PROGRAM = """
import sys, time
from profiler.jobs.manager import JobManager
from profiler.jobs.run import SIMULATE
from profiler.jobs.warm import Preloader
from profiler.spec import Job, Model
manager = JobManager(sys.argv[1], preloader=Preloader([sys.executable, "-m", "tests.jobs.fake_preloader"]))
run = manager.submit(Job(model=Model(name="sleep")), engine=SIMULATE)
while manager.status(run.run_id).step != 1:
    time.sleep(0.02)
print(run.run_id, flush=True)
time.sleep(60)
"""


def test_the_preloader_ends_with_a_server_that_is_killed_and_its_worker_is_taken_over(home: Path, make_manager: MakeManager) -> None:
    server = subprocess.Popen([sys.executable, "-c", PROGRAM, str(home)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert server.stdout
    run_id = server.stdout.readline().strip()
    worker = psutil.Process(json.loads((home / "jobs" / run_id / "state.json").read_text())["worker_pid"])
    preloader = worker.parent()
    assert preloader
    server.send_signal(signal.SIGKILL)
    server.communicate()
    wait_for_death(preloader)
    manager = make_manager()
    run = manager.status(run_id)
    assert run.state is RunState.RUNNING
    manager.cancel(run_id)

    assert ended(manager, run).state is RunState.CANCELLED
    wait_for_death(worker)


def test_the_real_preloader_has_one_thread_of_python_and_what_a_simulation_imports() -> None:
    code = """
import importlib, sys, threading
from profiler.jobs import preloader
for name in preloader.MODULES:
    importlib.import_module(name)
print(threading.active_count(), {"torch", "transformers", "profiler.simulate.engine"} <= set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["1", "True"]

"""Real worker processes with an engine that sleeps, refuses, crashes, hoards or has children."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from profiler.errors import JobFailed, SpecError, StorageError
from profiler.jobs import manager as manager_module
from profiler.jobs import process as process_module
from profiler.jobs import watch as watch_module
from profiler.jobs.folder import RunFolder
from profiler.jobs.manager import JobManager
from profiler.jobs.run import Ending, Limits, RunState, RunStatus
from profiler.jobs.settle import settle
from profiler.spec import Job, Model, Workload
from profiler.storage import read_recording
from tests.conftest import ROOT

MIB = 1024**2
COMMAND = (sys.executable, "-m", "tests.jobs.fake_worker")
MakeManager = Callable[..., JobManager]


@pytest.fixture
def make_manager(home: Path) -> Iterator[MakeManager]:
    made = []

    def make(**settings: object) -> JobManager:
        made.append(JobManager(home, worker_command=COMMAND, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for manager in made:
        manager.close()


@pytest.fixture
def manager(make_manager: MakeManager) -> JobManager:
    return make_manager()


def job(act: str, seed: int = 0) -> Job:
    return Job(model=Model(name=act), workload=Workload(seed=seed))


def wait_until(manager: JobManager, run: RunStatus, condition: Callable[[RunStatus], object], seconds: float = 20) -> RunStatus:
    end = time.monotonic() + seconds
    while not condition(status := manager.status(run.run_id)):
        assert time.monotonic() < end, f"it did not come to that: {status}"
        time.sleep(0.02)
    return status


def ended(manager: JobManager, run: RunStatus) -> RunStatus:
    return wait_until(manager, run, lambda status: status.state.final)


def running(manager: JobManager, run: RunStatus) -> RunStatus:
    return wait_until(manager, run, lambda status: status.step == 1)


def pids_of(manager: JobManager, run: RunStatus) -> list[int]:
    path = manager.store.home / "jobs" / run.run_id / "pids.txt"
    wait_until(manager, run, lambda status: path.exists() and path.read_text())  # the file is there before its content is
    return [int(pid) for pid in path.read_text().split()]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_job_becomes_a_recording_in_the_store(manager: JobManager) -> None:
    run = manager.submit(job("quick"), owner="Ada")
    status = ended(manager, run)

    assert status.state is RunState.DONE
    assert status.message == ""
    assert (status.owner, status.job, status.from_store) == ("Ada", job("quick"), False)
    assert status.recording_path is not None
    recording = read_recording(status.recording_path)
    assert recording.id == status.recording_id
    assert manager.store.find(recording.id) is not None
    assert 0 < status.seconds < 20


def test_the_same_job_again_is_answered_from_the_store_at_once(manager: JobManager) -> None:
    first = ended(manager, manager.submit(job("quick")))
    again = manager.submit(job("quick"))

    assert again.state is RunState.DONE
    assert again.from_store
    assert (again.recording_id, again.recording_path) == (first.recording_id, first.recording_path)
    assert again.message.startswith("Answered from the store")
    assert again.run_id != first.run_id


def test_a_fresh_run_and_another_job_are_not_answered_from_the_store(manager: JobManager) -> None:
    first = ended(manager, manager.submit(job("quick")))
    others = [manager.submit(job("quick"), fresh=True), manager.submit(job("quick", seed=1))]

    assert [status.from_store for status in others] == [False, False]
    assert {ended(manager, other).recording_path for other in others} != {first.recording_path}


def test_a_job_that_runs_already_is_joined_unless_it_is_being_cancelled(manager: JobManager) -> None:
    run = manager.submit(job("sleep"))

    assert manager.submit(job("sleep")).run_id == run.run_id
    manager.cancel(run.run_id)
    assert manager.submit(job("sleep")).run_id != run.run_id


def test_a_run_that_has_just_ended_is_not_joined(manager: JobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    again: list[str] = []

    def settle_and_ask(folder: RunFolder, ending: Ending) -> None:
        settle(folder, ending)
        if not again:  # its end is known to all, and the manager watches it still
            again.append(manager.submit(job("crash")).run_id)

    monkeypatch.setattr(manager_module, "_settle_if_readable", settle_and_ask)
    first = ended(manager, manager.submit(job("crash")))

    wait_until(manager, first, lambda _: again)
    assert again != [first.run_id]


def test_while_it_runs_its_phase_step_and_memory_are_seen_from_any_manager(manager: JobManager, make_manager: MakeManager) -> None:
    run = manager.submit(job("sleep"))
    running(manager, run)
    other = make_manager()
    seen = wait_until(other, run, lambda status: len(status.live) >= 3 and status.live[-1].allocated_bytes)

    assert (seen.state, seen.phase, seen.step, seen.num_steps) == (RunState.RUNNING, "forward", 1, 3)
    assert seen.live[-1].allocated_bytes == 5 * MIB
    assert all(point.rss_bytes > 5 * MIB for point in seen.live[1:])
    assert [point.t_seconds for point in seen.live] == sorted(point.t_seconds for point in seen.live)
    assert [status.run_id for status in other.list()] == [run.run_id]


def test_one_manager_cancels_what_another_runs(manager: JobManager, make_manager: MakeManager) -> None:
    run = manager.submit(job("sleep"))
    running(manager, run)
    other = make_manager()
    other.cancel(run.run_id)

    assert ended(other, run).state is RunState.CANCELLED


def test_runs_wait_in_the_order_they_came_and_at_most_so_many_run(make_manager: MakeManager) -> None:
    manager = make_manager(max_running=1)
    first, second, third = (manager.submit(job("sleep", seed)) for seed in range(3))
    running(manager, first)

    assert [manager.status(run.run_id).queue_position for run in (first, second, third)] == [None, 1, 2]
    manager.cancel(first.run_id)
    running(manager, second)
    assert manager.status(third.run_id).queue_position == 1
    manager.cancel(third.run_id)
    assert ended(manager, third).message == "Cancelled before it started."
    assert manager.status(second.run_id).state is RunState.RUNNING


def test_two_run_at_once_where_two_are_allowed(make_manager: MakeManager) -> None:
    manager = make_manager(max_running=2)
    runs = [manager.submit(job("sleep", seed)) for seed in range(3)]

    for run in runs[:2]:
        running(manager, run)
    assert manager.status(runs[2].run_id).state is RunState.QUEUED


def test_a_full_queue_refuses_and_says_how_many_wait(make_manager: MakeManager) -> None:
    manager = make_manager(max_running=1, max_queued=1)
    wait_until(manager, manager.submit(job("sleep", 0)), lambda status: status.state is RunState.RUNNING)
    manager.submit(job("sleep", 1))

    with pytest.raises(JobFailed, match="1 runs wait already"):
        manager.submit(job("sleep", 2))
    assert len(manager.list()) == 2


@pytest.mark.parametrize(
    ("act", "message"),
    [
        ("refuse", "heads=5 do not divide hidden=16. Use a divisor of 16."),
        ("stumble", "ZeroDivisionError: the batch was"),
        ("die", "The worker was killed (SIGKILL). The system does that when memory runs out: use a smaller batch, sequence or model. "
         "Its last words: my last words"),
        ("crash", "The worker crashed (SIGSEGV). Its last words: Fatal Python error: Segmentation fault"),
        ("leave", "The worker ended with exit code 7 and no result. Its last words: I had enough"),
    ],
)  # fmt: skip
def test_a_worker_that_fails_gives_one_message_and_the_next_run_is_well(manager: JobManager, act: str, message: str) -> None:
    status = ended(manager, manager.submit(job(act)))

    assert (status.state, status.message) == (RunState.FAILED, message)
    assert status.recording_path is None
    assert ended(manager, manager.submit(job("quick"))).state is RunState.DONE


def test_the_traceback_of_a_bug_is_kept_beside_the_run(manager: JobManager) -> None:
    status = ended(manager, manager.submit(job("stumble")))
    printed = (manager.store.home / "jobs" / status.run_id / "stderr.txt").read_text()

    assert "a line of the library before" in printed
    assert "ZeroDivisionError" in printed


def test_a_worker_that_leaves_no_recording_has_failed(manager: JobManager) -> None:
    status = ended(manager, manager.submit(job("forgetful")))

    assert status.state is RunState.FAILED
    assert status.message.startswith("The worker left no recording")


def test_a_worker_that_cannot_be_started_has_failed(home: Path) -> None:
    manager = JobManager(home, worker_command=[str(home / "no-such-program")])
    status = ended(manager, manager.submit(job("quick")))
    manager.close()

    assert status.state is RunState.FAILED
    assert status.message.startswith("The worker could not be started")


def test_cancel_ends_the_worker_and_its_children_even_if_they_resist(manager: JobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "GRACE_SECONDS", 0.3)
    run = manager.submit(job("father"))
    pids = pids_of(manager, run)
    assert len(pids) == 2
    assert all(map(alive, pids))
    manager.cancel(run.run_id)
    status = ended(manager, run)

    assert status.state is RunState.CANCELLED
    assert status.message.startswith("Cancelled after")
    assert not any(map(alive, pids))


def test_children_that_a_worker_leaves_behind_are_ended(manager: JobManager) -> None:
    run = manager.submit(job("abandon"))
    [child] = pids_of(manager, run)
    assert ended(manager, run).state is RunState.DONE

    assert not psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=5)[1]


def test_a_cancelled_run_leaves_no_recording_in_progress(manager: JobManager) -> None:
    run = manager.submit(job("partial and sleep"))
    running(manager, run)
    assert len(manager.store.partials()) == 1
    manager.cancel(run.run_id)

    assert ended(manager, run).recording_path is None
    assert manager.store.partials() == []


def test_what_has_ended_cannot_be_cancelled(manager: JobManager) -> None:
    status = ended(manager, manager.submit(job("quick")))
    manager.cancel(status.run_id)

    assert manager.status(status.run_id).state is RunState.DONE


def test_a_run_above_its_memory_limit_is_ended_with_both_numbers(manager: JobManager) -> None:
    status = ended(manager, manager.submit(job("hog"), limits=Limits(memory_bytes=300 * MIB)))

    assert status.state is RunState.FAILED
    assert "more than its limit of 300 MiB" in status.message
    assert max(point.rss_bytes for point in status.live) > 100 * MIB


def test_without_a_limit_what_the_machine_had_free_is_the_limit(manager: JobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = watch_module.this_machine()
    monkeypatch.setattr(watch_module, "this_machine", lambda: type(machine)(**{**machine.to_json(), "available_bytes": 300 * MIB}))
    status = ended(manager, manager.submit(job("hog")))

    assert status.state is RunState.FAILED
    assert "what this machine had free when it started, " in status.message


def test_a_run_beyond_its_time_limit_is_ended(manager: JobManager) -> None:
    status = ended(manager, manager.submit(job("sleep"), limits=Limits(seconds=0.5)))

    assert status.state is RunState.FAILED
    assert "longer than its limit of 500 ms" in status.message
    assert status.seconds < 10


def test_what_a_crashed_run_recorded_is_kept_and_marked_incomplete(manager: JobManager) -> None:
    status = ended(manager, manager.submit(job("partial")))

    assert status.state is RunState.FAILED
    assert status.message.endswith("What was recorded until then is kept.")
    assert status.recording_path is not None
    assert not read_recording(status.recording_path).metadata.complete
    assert not manager.submit(job("partial")).from_store


def test_closing_ends_all_runs_and_the_next_manager_says_so(make_manager: MakeManager) -> None:
    manager = make_manager()
    run, waiting = manager.submit(job("partial and sleep")), manager.submit(job("sleep"))
    running(manager, run)
    pid = json.loads((manager.store.home / "jobs" / run.run_id / "state.json").read_text())["worker_pid"]
    manager.close()
    assert not alive(pid)
    later = make_manager()

    assert later.status(run.run_id).message == "The server stopped while it ran. Run it again. What was recorded until then is kept."
    assert later.status(run.run_id).recording_path is not None
    assert later.status(waiting.run_id).message == "The server stopped before it began. Run it again."
    with pytest.raises(JobFailed, match="stopping"):
        manager.submit(job("quick"))


KILLED_SERVER = """
import os, sys, time
from profiler.jobs.manager import JobManager
from profiler.spec import Job, Model
manager = JobManager(sys.argv[1], worker_command=[sys.executable, "-m", "tests.jobs.fake_worker"])
run = manager.submit(Job(model=Model(name=sys.argv[2])))
while manager.status(run.run_id).step < 1: time.sleep(0.02)
print(run.run_id, flush=True)
os.kill(os.getpid(), 9)
"""


def run_on_a_server_that_is_killed(home: Path, act: str) -> str:
    server = subprocess.run(
        [sys.executable, "-c", KILLED_SERVER, home, act], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, timeout=60
    )
    return server.stdout.strip()


def test_a_worker_that_outlives_its_server_is_taken_over(home: Path, make_manager: MakeManager) -> None:
    run_id = run_on_a_server_that_is_killed(home, "sleep")
    manager = make_manager()
    run = manager.status(run_id)
    assert run.state is RunState.RUNNING
    manager.cancel(run_id)

    assert ended(manager, run).state is RunState.CANCELLED


def test_what_a_worker_held_before_it_is_taken_over_is_not_counted_against_it(
    home: Path, make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = run_on_a_server_that_is_killed(home, "sleep")
    machine = watch_module.this_machine()
    monkeypatch.setattr(watch_module, "this_machine", lambda: type(machine)(**{**machine.to_json(), "available_bytes": 20 * MIB}))
    manager = make_manager()
    run = wait_until(manager, manager.status(run_id), lambda status: status.seconds > 1.5)
    manager.cancel(run_id)

    assert ended(manager, run).state is RunState.CANCELLED


def test_a_worker_that_died_with_its_server_is_reported(home: Path, make_manager: MakeManager) -> None:
    run_id = run_on_a_server_that_is_killed(home, "partial and sleep")
    worker = json.loads((home / "jobs" / run_id / "state.json").read_text())["worker_pid"]
    psutil.Process(worker).kill()
    while alive(worker):
        time.sleep(0.01)
    status = make_manager().status(run_id)

    assert status.state is RunState.FAILED
    assert status.message.startswith("The server stopped while it ran.")
    assert status.recording_path is not None
    assert not read_recording(status.recording_path).metadata.complete


def test_only_the_newest_ended_runs_are_kept_and_their_recordings_all(make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make_manager()
    runs = [ended(manager, manager.submit(job("quick", seed))) for seed in range(3)]
    monkeypatch.setattr("profiler.jobs.manager.KEEP_RUNS", 2)
    later = make_manager()

    assert [status.run_id for status in later.list()] == [runs[2].run_id, runs[1].run_id]
    assert len(later.store.list()) == 3


@pytest.mark.parametrize("run_id", ["", "0", "../../etc", "00000000-00000000", "/", "0" * 500])
def test_an_unknown_run_is_refused(manager: JobManager, run_id: str) -> None:
    for ask in (manager.status, manager.cancel):
        with pytest.raises(SpecError, match="There is no run"):
            ask(run_id)


def test_damaged_files_of_one_run_do_not_hide_the_others(manager: JobManager, make_manager: MakeManager) -> None:
    good, bad = (ended(manager, manager.submit(job("quick", seed))) for seed in range(2))
    (manager.store.home / "jobs" / bad.run_id / "state.json").write_text('{"state": "flying"}')

    assert [status.run_id for status in manager.list()] == [good.run_id]
    assert [status.run_id for status in make_manager().list()] == [good.run_id]


def test_a_store_that_cannot_be_written_refuses_the_job(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    manager = JobManager(tmp_path / "file" / "home", worker_command=COMMAND)
    with pytest.raises(StorageError, match="cannot be written"):
        manager.submit(job("quick"))
    manager.close()


def test_the_manager_loads_no_torch() -> None:
    code = "import sys, profiler.jobs.manager; assert not {'torch', 'transformers', 'streamlit'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)

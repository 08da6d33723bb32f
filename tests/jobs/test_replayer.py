"""A worker answers questions about a recording as they would be answered here, tells how far it is, and ends when it is left."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from profiler.analysis import replays as replays_module
from profiler.analysis.replays import Question, Replays, Topic
from profiler.analysis.timeline import Timeline
from profiler.errors import JobFailed, SpecError, StorageError
from profiler.jobs.replayer import Replayer, Request
from profiler.recording import Recording
from profiler.storage import write_recording
from tests.builders import MIB, synthetic_recording

ENDLESS = [
    sys.executable,
    "-c",
    "import pickle, sys, time\nwhile True: pickle.dump(0.5, sys.stdout.buffer); sys.stdout.flush(); time.sleep(0.05)",
]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return write_recording(synthetic_recording(6_000), tmp_path_factory.mktemp("replayer") / "long.headroom")


@pytest.fixture(scope="module")
def request_of(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Request:
    path = tmp_path_factory.mktemp("replayer") / "long.headroom"
    write_recording(recording, path)
    return Request(path, recording.id, None, Question(Topic.TRIAL))


@pytest.fixture(scope="module")
def replayer() -> Iterator[Replayer]:
    replayer = Replayer()
    yield replayer
    replayer.close()


def workers() -> list[psutil.Process]:
    """Return the replay workers that this process has."""
    return [child for child in psutil.Process().children() if "profiler.jobs.replay_worker" in child.cmdline()]


@pytest.mark.parametrize(
    "question",
    [
        Question(Topic.TRIAL, "max_split_size_mb:64"),
        Question(Topic.TRIAL, capacity_bytes=2_500 * MIB),
        Question(Topic.MAP, "expandable_segments:True", event=3_000),
        Question(Topic.SMALLEST),
        Question(Topic.EXPLANATION, capacity_bytes=2_500 * MIB),
    ],
    ids=lambda question: question.topic.value,
)
def test_the_worker_answers_as_it_would_be_answered_here(
    recording: Recording, request_of: Request, replayer: Replayer, question: Question
) -> None:
    here = Replays(recording, Timeline.of(recording)).answer(question)

    assert repr(replayer.ask(replace(request_of, question=question))) == repr(here)


def test_a_series_keeps_its_peaks_and_says_how_many_points_there_were(
    recording: Recording, request_of: Request, replayer: Replayer
) -> None:
    series = replayer.ask(replace(request_of, question=Question(Topic.SERIES)))
    trial = replayer.ask(request_of).trial

    assert len(series) <= 2_000 < series.num_points <= 6_000
    assert (series.peak_bytes, int(series.allocated_bytes.max())) == (trial.peak_reserved_bytes, trial.peak_allocated_bytes)
    assert len(series.pick_rows()) == len(series)


def test_an_answer_is_remembered(request_of: Request, replayer: Replayer) -> None:
    first = replayer.ask(request_of)

    assert request_of in replayer
    assert replayer.ask(request_of) is first


def test_what_cannot_be_replayed_is_refused_and_the_worker_lives_on(request_of: Request, replayer: Replayer) -> None:
    replayer.ask(request_of)
    before = workers()
    with pytest.raises(SpecError, match="needs the card's size"):
        replayer.ask(replace(request_of, question=Question(Topic.TRIAL, "per_process_memory_fraction:0.5")))

    assert workers() == before
    with pytest.raises((SpecError, StorageError), match="cannot be read"):
        replayer.ask(replace(request_of, path=Path("gone.headroom"), recording_id="gone"))


def test_leaving_ends_the_work_and_the_next_question_begins_anew(request_of: Request) -> None:
    replayer = Replayer(ENDLESS)
    before = set(psutil.Process().children())
    seen: list[psutil.Process] = []

    def leave(share: float) -> None:
        assert share == 0.5
        seen.extend(set(psutil.Process().children()) - before)
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            replayer.ask(request_of, leave)

    assert len(seen) == 2
    assert not any(process.is_running() for process in seen)


def test_who_waits_for_another_question_can_leave_too(request_of: Request) -> None:
    replayer = Replayer(ENDLESS)
    entered, enough = threading.Event(), threading.Event()

    def until_enough(share: float) -> None:
        entered.set()
        if enough.is_set():
            raise JobFailed("enough")

    def longer() -> None:
        with pytest.raises(JobFailed, match="enough"):
            replayer.ask(request_of, until_enough)

    def leave(share: float) -> None:
        raise KeyboardInterrupt

    thread = threading.Thread(target=longer)
    thread.start()
    assert entered.wait(20)
    with pytest.raises(KeyboardInterrupt):
        replayer.ask(replace(request_of, question=Question(Topic.SMALLEST)), leave)
    assert thread.is_alive()
    enough.set()
    thread.join(20)
    assert not thread.is_alive()


def test_replays_tell_how_far_they_are(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[int] = []
    replays = Replays(recording, Timeline.of(recording), shares.append)
    monkeypatch.setattr(replays_module, "_COUNTED_STEPS", 1_000)

    replays.answer(Question(Topic.SMALLEST))

    assert set(shares) <= set(range(1, 1_001))
    assert 2 * replays.num_steps < sum(shares) <= Topic.SMALLEST.num_replays * replays.num_steps


def test_a_worker_that_is_killed_is_told_as_that(request_of: Request) -> None:
    replayer = Replayer([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])

    with pytest.raises(JobFailed, match=r"could not be replayed.*SIGKILL"):
        replayer.ask(request_of)

"""The files of a run: written by one process, read by another, whatever happened in between."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import FormatError, SpecError
from profiler.jobs import folder as folder_module
from profiler.jobs.folder import RunFolder
from profiler.jobs.process import how_it_ended, last_words
from profiler.jobs.run import Limits, LivePoint, Order, RunState, Standing
from profiler.spec import Job, Model, Toggle
from profiler.tracing.progress import Progress

ORDER = Order(
    job=Job(model=Model(name="tiny-gpt2"), toggles=(Toggle.parse("sgd:momentum=0.9"),)),
    key="k",
    engine="capture",
    recording=Path("runs/x.headroom"),
    submitted=5.5,
    owner=None,
    limits=Limits(memory_bytes=7, seconds=8),
)
STANDING = Standing(state=RunState.QUEUED, manager="m", manager_pid=1, manager_created=2.5)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "jobs" / "0a0a0a0a-0b0b0b0b")
    made.create(ORDER, STANDING)
    return made


def test_orders_and_standings_come_back_as_they_were(folder: RunFolder) -> None:
    assert folder.order() == ORDER
    assert folder.standing() == STANDING
    assert not [path for path in folder.path.iterdir() if path.suffix == ".tmp"]


def test_progress_is_the_last_that_was_told(folder: RunFolder) -> None:
    assert folder.progress() is None
    folder.write_progress(Progress(1, 3, "forward"))
    folder.write_progress(Progress(2, 3, "backward", 5, 6))

    assert folder.progress() == Progress(2, 3, "backward", 5, 6)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"state": "flying"}', '{"state": "done"}', "[" * 100_000, "\x00"])
def test_a_damaged_file_is_told_with_its_name(folder: RunFolder, text: str) -> None:
    for name, read in (("state.json", folder.standing), ("job.json", folder.order)):
        (folder.path / name).write_text(text)
        with pytest.raises(FormatError, match=f"{name} is missing or damaged"):
            read()
    (folder.path / "progress.json").write_text(text)
    (folder.path / "outcome.json").write_text(text)
    assert folder.progress() is None
    assert folder.outcome() is None


@given(points=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 2**50), st.none() | st.integers(0, 2**50)), max_size=20))
def test_live_points_come_back_in_order(tmp_path_factory: pytest.TempPathFactory, points: list[tuple[int, int, int | None]]) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    for point in points:
        folder.add_live(LivePoint(*point))

    assert folder.live() == tuple(LivePoint(*point) for point in points)


def test_a_live_point_that_is_half_written_waits_for_its_other_half(folder: RunFolder) -> None:
    folder.add_live(LivePoint(0.25, 100, None))
    with (folder.path / "live.csv").open("a") as file:
        file.write("0.5,20")

    assert folder.live() == (LivePoint(0.25, 100, None),)


def test_what_a_chatty_worker_prints_stays_bounded(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "MAX_STDERR_BYTES", 1000)
    with folder.stderr.open("ab") as worker:
        for _ in range(50):
            worker.write(b"x" * 99 + b"\n")
            worker.flush()
            folder.bound_stderr()
        worker.write(b"the end\n")

    assert folder.stderr.stat().st_size <= 1100
    assert last_words(folder.stderr) == "the end"


def test_last_words_are_the_last_line_or_the_fatal_error(tmp_path: Path) -> None:
    printed = tmp_path / "stderr.txt"
    assert last_words(printed) == ""
    printed.write_text("first\n\n  second  \n\n")
    assert last_words(printed) == "second"
    printed.write_text("Fatal Python error: Aborted\n\nCurrent thread:\n  File x\n")
    assert last_words(printed) == "Fatal Python error: Aborted"
    printed.write_bytes(b"\xff\xfe" + b"y" * 100_000)
    assert set(last_words(printed)) == {"y"}


@pytest.mark.parametrize(
    ("exit_code", "says"), [(None, "without a result"), (-9, "memory runs out"), (-6, "SIGABRT"), (-250, "signal 250"), (1, "exit code 1")]
)
def test_every_exit_has_a_sentence(exit_code: int | None, says: str) -> None:
    assert says in how_it_ended(exit_code, "")
    assert how_it_ended(exit_code, "ouch").endswith("Its last words: ouch")


@pytest.mark.parametrize("limits", [{"memory_bytes": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"seconds": 1e9}])
def test_impossible_limits_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="is not possible"):
        Limits(**limits)  # type: ignore[arg-type]

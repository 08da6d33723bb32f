"""Models inspected by a worker process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from profiler.errors import JobFailed, SpecError
from profiler.jobs.inspection import inspect_in_worker
from profiler.jobs.run import Limits
from profiler.spec import Model

COMMAND = (sys.executable, "-m", "tests.jobs.fake_inspect")
MIB = 1024**2


def ask(name: str, home: Path, **settings: object) -> dict[str, object]:
    return inspect_in_worker(Model(name=name), home, command=COMMAND, **settings)  # type: ignore[arg-type]


def test_facts_are_found_once_and_then_read_from_disk(home: Path) -> None:
    first = ask("small", home)
    [kept] = (home / "models").iterdir()

    assert first == {"name": "small", "num_parameters": 7, "times_asked": 1}
    assert inspect_in_worker(Model(name="small"), home, command=("no-such-program",)) == first
    assert kept.suffix == ".json"


def test_a_model_that_cannot_be_built_is_the_users_to_mend_and_is_not_kept(home: Path) -> None:
    with pytest.raises(SpecError, match="heads=5 do not divide"):
        ask("refuse", home)
    assert not (home / "models").exists()


def test_a_bug_is_told_by_its_last_line(home: Path) -> None:
    with pytest.raises(JobFailed, match="KeyError: 'n_embd'"):
        ask("stumble", home)


def test_a_worker_that_crashes_tells_its_last_words(home: Path) -> None:
    with pytest.raises(JobFailed, match=r"crashed \(SIGSEGV\).*Segmentation fault"):
        ask("crash", home)


def test_limits_of_time_and_memory_hold(home: Path) -> None:
    with pytest.raises(JobFailed, match="within 500 ms"):
        ask("sleep", home, limits=Limits(seconds=0.5))
    with pytest.raises(JobFailed, match="more than the 200 MiB"):
        ask("hog", home, limits=Limits(memory_bytes=200 * MIB, seconds=20))


def test_facts_are_given_even_where_they_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert ask("small", tmp_path / "file")["num_parameters"] == 7


@pytest.mark.slow
def test_a_real_model_is_inspected(home: Path) -> None:
    assert inspect_in_worker(Model(name="gpt2"), home)["num_parameters"] == 124_439_808

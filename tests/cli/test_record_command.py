"""The command that runs a script of the user's: what the script sees, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from profiler.storage import read_metadata
from tests.cli.conftest import SHOWN, Run, is_one_sentence_of_headroom

TRAINING = """
import sys
import torch

model = torch.nn.Linear(8, 8)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(int(sys.argv[1])):
    model(torch.ones(4, 8)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    print("step", step, sys.argv[2:])
"""


@pytest.fixture
def script(here: Path) -> Callable[..., Path]:
    def write(*more: str) -> Path:
        path = here / "scripts" / "train.py"
        path.parent.mkdir()
        path.write_text("\n".join([TRAINING, *more]), encoding="utf-8")
        return path

    return write


def test_record_runs_a_script_with_its_own_arguments(run: Run, here: Path, script: Callable[..., Path]) -> None:
    (here / "neighbour.py").write_text("raise RuntimeError('the script sees its own folder, not this one')")
    path = script("import neighbour", "assert __name__ == '__main__'")
    (path.parent / "neighbour.py").touch()
    before = sys.argv, sys.path[:]

    result = run("record", path, "3", "--json", "--lr=1")

    assert result.code == 0, result.err
    assert "step 2 ['--json', '--lr=1']\n" in result.out
    assert result.out.splitlines()[-1] == "Recording: train.headroom"
    assert (sys.argv, sys.path) == before
    assert run("show", "train.headroom", "--json").json["steps"] == [0, 1, 2]
    assert not list(here.glob("*.partial"))


def test_record_as_json_keeps_the_script_s_own_words_out_of_stdout(run: Run, here: Path, script: Callable[..., Path]) -> None:
    result = run("record", "--json", "--out", "named", script(), "2")

    assert result.json.keys() >= SHOWN | {"path"}
    assert (result.json["path"], result.json["title"]) == ("named.headroom", "train.py")
    assert "step 1 []\n" in result.err


def test_a_script_that_raises_shows_its_traceback_and_leaves_a_recording(run: Run, script: Callable[..., Path]) -> None:
    path = script("def fail():", "    raise ValueError('no more data')", "fail()")

    result = run("record", "--json", path, "2")

    assert result.code == 3
    trace = result.err[result.err.index("Traceback") :].splitlines()
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[1].startswith(f'  File "{path}", line ')
    assert trace[-1] == "ValueError: no more data"
    assert result.json["path"] == "train.headroom"
    assert any("ended with ValueError in step 1" in warning for warning in result.json["warnings"])
    assert read_metadata(Path("train.headroom")).facts["error"] == "ValueError: no more data"


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("sys.exit()", 0, ""),
        ("sys.exit(0)", 0, ""),
        ("sys.exit(2)", 3, ""),
        ("sys.exit('no GPU')", 3, "no GPU\n"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt\n"),
    ],
)
def test_a_script_may_end_by_itself(run: Run, script: Callable[..., Path], end: str, code: int, said: str) -> None:
    result = run("record", script(end), "2")

    assert result.code == code
    assert result.err.endswith(said)
    assert ("Traceback" in result.err) is (code == 130)
    assert "Recording: train.headroom" in result.out
    assert ("error" in read_metadata(Path("train.headroom")).facts) is (code != 0)


def test_a_script_that_is_no_python_shows_the_line(run: Run, here: Path) -> None:
    (here / "broken.py").write_text("x = = 1\n")

    result = run("record", "broken.py")

    assert result.code == 3
    assert "broken.py" in result.err
    assert "SyntaxError: invalid syntax" in result.err
    assert "runpy" not in result.err


@pytest.mark.parametrize(
    ("name", "said"),
    [("missing.py", "missing.py is not there."), ("notes.txt", "notes.txt is not a Python script."), (".", ". is not there.")],
)
def test_what_is_no_script_is_refused(run: Run, here: Path, name: str, said: str) -> None:
    (here / "notes.txt").touch()

    result = run("record", name)

    assert (result.code, result.out) == (2, "")
    assert is_one_sentence_of_headroom(result.err)
    assert said in result.err
    assert [path.name for path in here.iterdir()] == ["notes.txt"]


def test_a_recording_that_cannot_be_written_is_refused_before_the_script_runs(run: Run, here: Path, script: Callable[..., Path]) -> None:
    (here / "a-file").touch()

    result = run("record", "--out", "a-file/x.headroom", script(), "1")

    assert (result.code, result.out) == (2, "")
    assert is_one_sentence_of_headroom(result.err)
    assert "a-file" in result.err

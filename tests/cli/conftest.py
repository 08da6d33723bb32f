"""What the tests of the commands share: running one, and snapshots to run it on."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from profiler.cli import main
from profiler.formats.convert import to_recording
from profiler.formats.snapshot import read_snapshot
from profiler.storage import write_recording
from tests.formats import snapshots
from tests.formats.snapshots import write

SHOWN = {
    "id",
    "title",
    "provenance",
    "num_events",
    "peak_allocated_bytes",
    "peak_at",
    "categories_at_peak",
    "steps",
    "warnings",
}
"""What `show --json` prints at least."""


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]
Import = Callable[[dict[str, Any]], Path]


def is_one_sentence_of_headroom(err: str) -> bool:
    return err.startswith("headroom: ") and err.count("\n") == 1 and "Traceback" not in err


def is_refused(result: Result) -> bool:
    return result.code == 2 and not result.out and is_one_sentence_of_headroom(result.err)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def call(*arguments: str | Path) -> Result:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, so that nothing is written anywhere else."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a library look as if it were not installed."""
    find_spec = importlib.util.find_spec

    def remove(library: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None if name == library else find_spec(name, package))

    return remove


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Import:
    """Return the recording file of a snapshot, made in this process: a worker takes half a second to start."""

    def make(data: dict[str, Any]) -> Path:
        folder = tmp_path_factory.mktemp("imported")
        recording = to_recording(read_snapshot(write(folder / "made.pickle", data)))
        write_recording(recording, folder / "made.headroom")
        return folder / "made.headroom"

    return make


@pytest.fixture(scope="session")
def recorded_training(imported: Import) -> Path:
    """The recording of `training`."""
    return imported(snapshots.training())


@pytest.fixture
def training(here: Path) -> Path:
    """A snapshot of one training step: 16 MiB allocated at the peak, in one segment of 20 MiB."""
    return write(here / "training.pickle", snapshots.training())

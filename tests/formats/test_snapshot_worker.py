"""Reading in a worker: what strangers' files may take, and what comes back."""

from __future__ import annotations

import gzip
import pickle
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiler.analysis.timeline import Timeline
from profiler.devices import this_machine
from profiler.errors import FormatError, SpecError, StorageError
from profiler.formats import worker
from profiler.formats.worker import address_space_bytes, read_in_worker
from profiler.storage import read_recording
from profiler.units import GIB
from tests.formats.snapshots import MIB, training, write


def _processor_seconds_of_workers() -> float:
    """Return what processes that ended took: other than on the clock, it does not count what else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_recording_comes_back_as_a_file_with_progress(tmp_path: Path) -> None:
    told: list[float] = []
    path = write(tmp_path / "a.pickle", training())

    recording = read_in_worker(path, tmp_path / "a.headroom", progress=told.append, parameter_bytes=[4 * MIB])

    assert Timeline.of(recording).peak_bytes == 16 * MIB
    assert read_recording(tmp_path / "a.headroom").id == recording.id
    assert told == sorted(told)
    assert told[-1] == 1.0


def _free(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    monkeypatch.setattr(worker, "this_machine", lambda: replace(this_machine(), available_bytes=num_bytes))


@pytest.mark.parametrize(
    ("payload_bytes", "free_bytes", "allowed_bytes"),
    [
        pytest.param(1_000, 64 * GIB, GIB + 4_000, id="four times the pickle and a GiB"),
        pytest.param(6 * GIB, 8 * GIB, 6 * GIB, id="three quarters of what is free"),
        pytest.param(6 * GIB, 64 * GIB, 25 * GIB, id="a large file on a large machine"),
        pytest.param(6 * GIB, GIB // 2, GIB, id="enough to begin"),
    ],
)
def test_a_worker_may_map_what_its_file_needs_and_never_the_whole_machine(
    payload_bytes: int, free_bytes: int, allowed_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _free(monkeypatch, free_bytes)

    assert address_space_bytes(payload_bytes) == allowed_bytes


def test_what_needs_more_than_the_machine_has_is_said_to_be_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.pickle"
    path.write_bytes(b"\x80\x04](" + b"N" * (96 * MIB) + b"e.")  # a list of 100 million places, of eight bytes each, made twice
    _free(monkeypatch, GIB)
    said = r"large\.pickle holds 96\.0 MiB and needs more than the 1\.00 GiB of memory that this machine can spare now\."

    with pytest.raises(FormatError, match=said):
        read_in_worker(path, tmp_path / "out.headroom")


def test_a_small_gzip_of_much_is_refused_before_a_process_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\x80\x04" + bytes(64 * MIB)))
    monkeypatch.setattr(worker.subprocess, "Popen", None)

    with pytest.raises(
        FormatError, match=r"^bomb\.gz unpacks to at least [\d,]+ bytes, which no snapshot of its size does\. It is not opened\.$"
    ):
        read_in_worker(path, tmp_path / "out.headroom")


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(b"\x80\x04]r\xff\xff\xff\x7f.", id="a memo of two thousand million places"),
        pytest.param(b"\x80\x04" + b"(" * 10 + b"\x96" + (2**33).to_bytes(8, "little") + b".", id="a bytearray of 8 GiB"),
        pytest.param(b"\x80\x04" + b"]" + b"2" * 100 + b"r\xff\xff\xff\x3f.", id="a memo behind other opcodes"),
    ],
)
def test_a_few_bytes_that_take_gigabytes_end_in_the_worker(bomb: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pickle"
    path.write_bytes(bomb)
    before = _processor_seconds_of_workers()

    with pytest.raises(FormatError, match=r"bomb\.pickle"):
        read_in_worker(path, tmp_path / "out.headroom")

    assert _processor_seconds_of_workers() - before < 5
    assert not (tmp_path / "out.headroom").exists()


def test_a_file_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    # Python hashes multiples of 2**61 - 1 to the same number: putting so many in a dictionary takes minutes.
    keys = b"".join(b"\x8a\x0b" + (number * (2**61 - 1)).to_bytes(11, "little") + b"N" for number in range(1, 100_000))
    path = tmp_path / "slow.pickle"
    path.write_bytes(b"\x80\x04}(" + keys + b"u.")
    before = _processor_seconds_of_workers()

    with pytest.raises(FormatError, match=r"slow\.pickle was not read within 2 s"):
        read_in_worker(path, tmp_path / "out.headroom", seconds=2)

    assert _processor_seconds_of_workers() - before < 5


def test_a_deep_key_that_overflows_the_stack_ends_only_the_worker(tmp_path: Path) -> None:
    depth = 1_000_000
    path = tmp_path / "deep.pickle"
    path.write_bytes(b"\x80\x04}(" + b")" + b"\x85" * depth + b"K\x01u.")

    with pytest.raises(FormatError, match=r"deep\.pickle"):
        read_in_worker(path, tmp_path / "out.headroom")


class _Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.path,)


def test_a_file_that_wants_to_run_code_tells_what_it_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "evil.pickle"
    path.write_bytes(pickle.dumps(_Runs(tmp_path / "it-ran")))

    with pytest.raises(FormatError, match="tries to import pathlib"):
        read_in_worker(path, tmp_path / "out.headroom")
    assert not (tmp_path / "it-ran").exists()


def test_errors_keep_their_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pickle", training())
    (tmp_path / "rules.json").write_text("[]")

    with pytest.raises(SpecError, match=r"rules\.json"):
        read_in_worker(path, tmp_path / "out.headroom", rules=tmp_path / "rules.json")
    with pytest.raises(StorageError, match="cannot be written"):
        read_in_worker(path, tmp_path / "none" / "out.headroom")
    with pytest.raises(StorageError, match="cannot be read"):
        read_in_worker(tmp_path / "missing.pickle", tmp_path / "out.headroom")

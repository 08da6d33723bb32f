"""Reading in a worker: what strangers' files may take, and what comes back."""

from __future__ import annotations

import pickle
import resource
from pathlib import Path
from typing import Any

import pytest

from profiler.analysis.timeline import Timeline
from profiler.errors import FormatError, SpecError, StorageError
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


def test_a_worker_may_map_a_gib_and_four_times_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pickle"
    path.write_bytes(b"x" * 1_000)

    assert address_space_bytes(path) == GIB + 4_000


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

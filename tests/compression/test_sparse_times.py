"""Times of sparse products: measured, kept, and where a format begins to be faster."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from profiler.compression.sparse_times import measure_times
from profiler.errors import JobFailed
from profiler.jobs.sparse_times import SparseTime, break_even_in_time, sparse_times


def test_a_small_measurement_has_a_row_for_each_format_and_share() -> None:
    rows = measure_times(size=64, columns=8, shares=(0.0, 0.9), rounds=1)

    assert {(row["format"], row["zeros"]) for row in rows} == {
        (name, share) for name in ("csr-int32", "coo", "bsr-16", "bitmask", "2:4") for share in (0.0, 0.9)
    }
    assert all(row["seconds"] > 0 < row["ratio"] for row in rows)


def test_times_are_measured_once_and_read_the_second_time(home: Path) -> None:
    rows = [{"format": "csr", "zeros": 0.5, "seconds": 0.1, "ratio": 2.0}]
    first = sparse_times(command=(sys.executable, "-c", f"print({json.dumps(rows)!r})"))

    assert first == [SparseTime("csr", 0.5, 0.1, 2.0)]
    assert sparse_times(command=("never",)) == first
    assert len(list((home / "compression").iterdir())) == 1


@pytest.mark.parametrize(
    ("code", "words"), [("print('no list')", "printed something else"), ("raise SystemExit('no memory left')", "no memory left")]
)
def test_a_worker_that_gives_no_times_is_told(code: str, words: str) -> None:
    with pytest.raises(JobFailed, match=words):
        sparse_times(command=(sys.executable, "-c", code))


def test_break_even_lies_between_the_last_slower_and_the_first_faster_measurement() -> None:
    times = [SparseTime("csr", zeros, 0, ratio) for zeros, ratio in ((0.0, 4.0), (0.7, 1.5), (0.9, 0.5))]

    assert break_even_in_time(times, "csr") == pytest.approx(0.8)
    assert break_even_in_time(times[:2], "csr") is None
    assert break_even_in_time(times[2:], "csr") == 0.9
    assert break_even_in_time(times, "coo") is None

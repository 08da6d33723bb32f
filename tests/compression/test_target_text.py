"""A target as users type it: shares stay shares, sizes and times are held against the untouched model."""

from __future__ import annotations

import pytest

from profiler.compression.target import Goal
from profiler.compression.target_text import Baseline
from profiler.errors import SpecError
from profiler.units import MIB
from tests.compression.results import result

KNOWN = Baseline(num_bytes=4 * MIB, seconds=0.2)


@pytest.mark.parametrize(("text", "share"), [("0.3", 0.3), ("30%", 0.3), ("2 MiB", 0.5), ("1048576 B", 0.25), ("4MiB", 1.0)])
def test_bytes_are_a_share_or_a_size(text: str, share: float) -> None:
    assert KNOWN.bytes_share(text) == share


@pytest.mark.parametrize(("text", "share"), [("0.5", 0.5), ("150 %", 1.5), ("50 ms", 0.25), ("0.4 s", 2.0)])
def test_time_is_a_share_or_a_duration(text: str, share: float) -> None:
    assert KNOWN.time_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "words"), [("a third", "neither a share nor a size"), ("5 MiB", "at most the untouched 4.00 MiB"), ("0 B", "more than 0")]
)
def test_bytes_that_cannot_be_are_refused_with_a_way_out(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        KNOWN.bytes_share(text)


def test_a_time_that_cannot_be_read_or_compared_is_refused_with_a_way_out() -> None:
    with pytest.raises(SpecError, match="neither a share nor a time"):
        KNOWN.time_share("2 MiB")
    with pytest.raises(SpecError, match="Measure one technique first"):
        Baseline(num_bytes=1, seconds=None).time_share("50 ms")


def test_the_baseline_is_that_of_the_newest_result_and_before_one_the_parameters_in_float32() -> None:
    assert Baseline.of("lab", Goal.DISK, [result("ans")]) == Baseline(num_bytes=1000, seconds=1.0)
    assert Baseline.of("lab", Goal.MEMORY, []) == Baseline(num_bytes=4 * 918_656, seconds=None)

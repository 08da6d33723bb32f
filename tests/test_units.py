from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import SpecError
from profiler.units import GIB, MIB, exact_bytes, format_bytes, format_count, format_duration_us, parse_bytes, parse_duration_us


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1.00 KiB"),
        (10 * 1024, "10.0 KiB"),
        (1023 * 1024, "1.00 MiB"),
        (MIB, "1.00 MiB"),
        (int(1.39 * GIB), "1.39 GiB"),
        (24 * GIB, "24.0 GiB"),
        (405 * 10**9 * 16, "5.89 TiB"),
        (-3 * GIB, "-3.00 GiB"),
        (5000 * 1024**5, "5000 PiB"),
    ],
)
def test_bytes_have_three_significant_digits_and_a_binary_unit(num_bytes: int, text: str) -> None:
    assert format_bytes(num_bytes) == text


def test_signed_differences_show_a_plus() -> None:
    assert format_bytes(MIB, signed=True) == "+1.00 MiB"
    assert format_bytes(0, signed=True) == "0 B"


@given(st.integers(min_value=0, max_value=1 << 55))
def test_parsing_what_was_formatted_gives_the_number_back_within_its_digits(num_bytes: int) -> None:
    assert parse_bytes(format_bytes(num_bytes)) == pytest.approx(num_bytes, rel=0.0052)


@given(st.integers(min_value=0, max_value=1 << 55))
def test_exact_bytes_keep_every_digit(num_bytes: int) -> None:
    assert int(exact_bytes(num_bytes).removesuffix(" B").replace(",", "")) == num_bytes


@pytest.mark.parametrize(("text", "num_bytes"), [("24GiB", 24 * GIB), ("1.5 GB", 1_500_000_000), ("4096", 4096), ("512 mib", 512 * MIB)])
def test_sizes_are_read_with_both_kinds_of_units(text: str, num_bytes: int) -> None:
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["", "many", "12 parsecs", "1e9", "GiB", "--3", "nan"])
def test_a_text_that_is_no_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(SpecError, match="is not a size. Write a number and a unit"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7"), (999, "999"), (124_439_808, "124 M"), (8_030_261_248, "8.03 B"), (66_362_880, "66.4 M")]
)
def test_counts_are_in_thousands(count: int, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(("duration_us", "text"), [(12, "12.0 us"), (340_000, "340 ms"), (1_520_000, "1.52 s"), (125e6, "2 min 5 s")])
def test_durations_have_a_fitting_unit(duration_us: float, text: str) -> None:
    assert format_duration_us(duration_us) == text


@pytest.mark.parametrize(("text", "duration_us"), [("50 ms", 50_000), ("1.5s", 1_500_000), (" 340 us ", 340), ("2 min", 120_000_000)])
def test_times_are_read_with_their_units(text: str, duration_us: float) -> None:
    assert parse_duration_us(text) == duration_us


@pytest.mark.parametrize("text", ["", "50", "soon", "3 parsecs", "1e3 ms", "nan s"])
def test_a_text_that_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(SpecError, match="is not a time. Write a number and a unit"):
        parse_duration_us(text)

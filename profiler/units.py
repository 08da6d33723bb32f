"""Bytes and durations <-> the text people read and write.

Memory is counted in powers of 1024 and says so: GiB (gibibyte) is 1024**3 bytes, GB is 1000**3. This is the only module that
knows either number.
"""

from __future__ import annotations

import re

from profiler.errors import SpecError

KIB = 1024
MIB = 1024**2
GIB = 1024**3

_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_FACTORS = {unit.lower(): 1024**power for power, unit in enumerate(_BINARY_UNITS)} | {
    unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb", "pb"))
}
_NUMBER_AND_UNIT = re.compile(r"^\s*(?P<number>-?\d+(?:\.\d+)?)\s*(?P<unit>[a-zA-Z]*)\s*$")
_MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6, "min": 60e6}


def format_bytes(num_bytes: int | float, *, signed: bool = False) -> str:
    """Return ``num_bytes`` with three significant digits and a binary unit, such as ``1.39 GiB``.

    Args:
        num_bytes: a number of bytes; may be negative.
        signed: write a leading ``+`` for gains, for differences.
    """
    magnitude = abs(float(num_bytes))
    power = 0
    while magnitude >= 999.5 and power < len(_BINARY_UNITS) - 1:
        magnitude /= 1024
        power += 1
    sign = "-" if num_bytes < 0 else "+" if signed and num_bytes > 0 else ""
    return f"{sign}{_three_digits(magnitude, whole=power == 0)} {_BINARY_UNITS[power]}"


def exact_bytes(num_bytes: int) -> str:
    """Return ``num_bytes`` in full with thousands separators, such as ``1,493,172,224 B``."""
    return f"{num_bytes:,} B"


def parse_bytes(text: str) -> int:
    """Return the bytes that ``text`` such as ``24GiB``, ``1.5 GB`` or ``4096`` names.

    Raises:
        SpecError: the text is not a number with a known unit.
    """
    match = _NUMBER_AND_UNIT.match(text)
    unit = (match["unit"] or "B").lower() if match else ""
    if match is None or unit not in _FACTORS:
        raise SpecError(f"{text!r} is not a size. Write a number and a unit, such as 24GiB, 512 MiB or 4096.")
    return round(float(match["number"]) * int(_FACTORS[unit]))


def parse_share(text: str) -> float:
    """Return the share that ``text`` such as ``1%`` or ``0.01`` names.

    Raises:
        SpecError: the text is not a number from 0 to 100 %.
    """
    share = read_share(text)
    if share is None or not 0 <= share <= 1:
        raise SpecError(f"{text!r} is not a share. Write a number from 0% to 100%, such as 1%.")
    return share


def read_share(text: str) -> float | None:
    """Return a number without a unit, or in percent, as a share of whatever size; None for all else."""
    number, percent, rest = text.strip().partition("%")
    try:
        return None if rest else float(number) / (100 if percent else 1)
    except ValueError:
        return None


def format_count(count: int | float) -> str:
    """Return a count with three significant digits and k, M, B or T (thousands), such as ``124 M``."""
    magnitude = float(count)
    for suffix in ("", " k", " M", " B", " T"):
        if abs(magnitude) < 999.5 or suffix == " T":
            return f"{_three_digits(magnitude, whole=suffix == '')}{suffix}"
        magnitude /= 1000
    raise AssertionError("unreachable: the last suffix always returns")


def parse_duration_us(text: str) -> float:
    """Return the microseconds that ``text`` such as ``50 ms``, ``1.5s`` or ``340 us`` names.

    Raises:
        SpecError: the text is not a number with a known unit.
    """
    match = _NUMBER_AND_UNIT.match(text)
    factor = _MICROSECONDS.get(match["unit"]) if match else None
    if match is None or factor is None:
        raise SpecError(f"{text!r} is not a time. Write a number and a unit, such as 50 ms, 1.5 s or 340 us.")
    return float(match["number"]) * factor


def format_duration_us(duration_us: float) -> str:
    """Return a duration given in microseconds, such as ``1.52 s`` or ``340 ms``."""
    if abs(duration_us) >= 60e6:
        minutes, seconds = divmod(round(duration_us / 1e6), 60)
        return f"{minutes} min {seconds} s"
    for factor, unit in ((1e6, "s"), (1e3, "ms")):
        if abs(duration_us) >= factor * 0.9995:
            return f"{_three_digits(duration_us / factor)} {unit}"
    return f"{_three_digits(duration_us)} us"


def _three_digits(value: float, *, whole: bool = False) -> str:
    """Return ``value`` with three significant digits, never in scientific notation."""
    if whole:
        return f"{value:.0f}"
    magnitude = abs(value)
    decimals = 2 if magnitude < 9.995 else 1 if magnitude < 99.95 else 0
    return f"{value:.{decimals}f}"

"""What is compared: entries of published.json as printed numbers, and rows of the table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from profiler.recording import Provenance


@dataclass(frozen=True)
class Printed:
    """A number as a source prints it: it stands for everything that rounds to it. Differences add up what may be lost."""

    value: float
    last_digit: float
    """The weight of its last printed digit: 0.01 for 1.25."""

    @classmethod
    def read(cls, number: Decimal | int) -> Printed:
        """Return the number that a JSON text spells; whole numbers are printed to the last one."""
        exponent = Decimal(number).as_tuple().exponent
        return cls(float(number), 10.0 ** min(int(exponent), 0))

    def __sub__(self, other: Printed) -> Printed:
        return Printed(self.value - other.value, self.last_digit + other.last_digit)

    def __truediv__(self, count: float) -> Printed:
        return Printed(self.value / count, self.last_digit / count)


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a number may be off: a share of the published value, or units of its last digit, whichever is more."""

    share: float = 0.0
    digits: float = 0.0
    low: float | None = None
    """With ``high``, the difference of published and ours must lie between them, in the row's unit: for what is known as a band."""
    high: float | None = None

    def allows(self, published: Printed, ours: float) -> bool:
        """Return whether ``ours`` agrees."""
        difference = published.value - ours
        if self.low is not None and self.high is not None:
            return self.low <= difference <= self.high
        slack = 1e-9 * max(abs(published.value), 1.0)  # binary fractions of decimal digits
        return abs(difference) <= max(self.share * abs(published.value), self.digits * published.last_digit) + slack

    def __str__(self) -> str:
        if self.low is not None:
            return f"{self.low:g} to {self.high:g} less"
        share, digits = (f"{self.share:.2%}" if self.share else ""), {0: "", 0.5: "as printed", 1: "one digit"}.get(self.digits, "")
        return " or ".join(filter(None, (share, digits))) or "exact"


EXACT = Tolerance()
PRINTED = Tolerance(digits=0.5)
"""Rounded to the digits that are printed."""
TRUNCATED = Tolerance(digits=1)
"""Cut to the digits that are printed, or said to be rough."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published number, or difference of two, beside ours."""

    ids: tuple[str, ...]
    what: str
    published: Printed
    ours: float
    unit: str
    tolerance: Tolerance
    provenance: Provenance = Provenance.ESTIMATED
    note: str = ""
    wrong_as_printed: bool = False
    """The source contradicts itself: shown, not judged."""

    @property
    def holds(self) -> bool:
        """Whether ours agrees within the tolerance."""
        return self.tolerance.allows(self.published, self.ours)

    @property
    def error(self) -> float:
        """Ours against the published, as a share."""
        return (self.ours - self.published.value) / self.published.value

    @property
    def verdict(self) -> str:
        """One word or a few for the table."""
        if self.wrong_as_printed:
            return "wrong as printed"
        return "holds" if self.holds else "FAILS"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "ids": list(self.ids),
            "what": self.what,
            "published": self.published.value,
            "ours": self.ours,
            "unit": self.unit,
            "error_percent": 100 * self.error,
            "tolerance": str(self.tolerance),
            "holds": self.holds,
            "wrong_as_printed": self.wrong_as_printed,
            "provenance": str(self.provenance),
            "note": self.note,
        }


class Published:
    """The entries of a file of published numbers, by id."""

    def __init__(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        self._entries = entries

    @classmethod
    def read(cls, path: Path) -> Published:
        """Return the entries of a JSON file, its numbers with the digits that they are written with."""
        entries = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        return cls({entry["id"]: entry for entry in entries})

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, identity: str) -> Mapping[str, Any]:
        """Return an entry as the file has it."""
        return self._entries[identity]

    def printed(self, identity: str) -> Printed:
        """Return an entry's number."""
        return Printed.read(self._entries[identity]["value"])

    def ids(self, prefix: str) -> Iterator[str]:
        """Yield the ids that begin so, in the file's order."""
        return (identity for identity in self._entries if identity.startswith(prefix))

    def row(
        self,
        identity: str,
        ours: float,
        tolerance: Tolerance,
        note: str = "",
        last_digit: float | None = None,
        provenance: Provenance = Provenance.ESTIMATED,
    ) -> Iterator[Row]:
        """Yield the row of one entry, or nothing where the file lacks it or has a formula.

        Args:
            identity: of the entry.
            ours: in the entry's unit.
            tolerance: to demand.
            note: what the row leaves out, or why it differs.
            last_digit: of the source's own spelling, where the file writes 4.7M as 4700000.
            provenance: of ours.
        """
        if not self._has_number(identity):
            return
        entry, printed = self._entries[identity], self.printed(identity)
        yield Row(
            ids=(identity,),
            what=f"{entry['model']}: {entry['quantity']}",
            published=printed if last_digit is None else Printed(printed.value, last_digit),
            ours=ours,
            unit=_unit(entry["unit"]),
            tolerance=tolerance,
            provenance=provenance,
            note=note,
            wrong_as_printed=entry["confidence"] == "wrong as printed",
        )

    def difference(
        self,
        more: str,
        less: str,
        what: str,
        ours: float,
        tolerance: Tolerance,
        note: str = "",
        provenance: Provenance = Provenance.ESTIMATED,
    ) -> Iterator[Row]:
        """Yield the row of two entries' difference, or nothing where the file lacks one."""
        if not (self._has_number(more) and self._has_number(less)):
            return
        yield Row(
            ids=(more, less),
            what=what,
            published=self.printed(more) - self.printed(less),
            ours=ours,
            unit=_unit(self._entries[more]["unit"]),
            tolerance=tolerance,
            provenance=provenance,
            note=note,
        )

    def _has_number(self, identity: str) -> bool:
        return identity in self._entries and isinstance(self._entries[identity]["value"], (int, Decimal))


def _unit(text: str) -> str:
    """Return the unit without the file's remark on it."""
    return text.partition(" (")[0]

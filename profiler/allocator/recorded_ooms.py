"""Out-of-memory errors of the run itself, seen while it was recorded <-> a fact of the recording."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from profiler.recording import Metadata

_FACT = "ooms"
_FIRST_FACT = "oom"
"""How it was called in the first imported recordings."""
MAX_OOMS = 100


class RecordedOom(NamedTuple):
    """One error."""

    device: int
    requested_bytes: int
    device_free_bytes: int
    """What the driver had left."""


def oom_facts(ooms: Iterable[RecordedOom]) -> dict[str, Any]:
    """Return the fact that keeps the last of these errors; nothing where there were none."""
    last = [oom._asdict() for oom in ooms][-MAX_OOMS:]
    return {_FACT: last} if last else {}


def recorded_ooms(metadata: Metadata) -> list[RecordedOom]:
    """Return the errors that a recording names, in the order of time; what is none is left out."""
    listed = metadata.facts.get(_FACT, metadata.facts.get(_FIRST_FACT))
    found = [_oom(row) for row in listed[:MAX_OOMS]] if isinstance(listed, list) else []
    return [oom for oom in found if oom is not None]


def _oom(row: Any) -> RecordedOom | None:
    values: list[Any] = [row.get(name) for name in RecordedOom._fields] if isinstance(row, dict) else []
    return RecordedOom(*values) if values and all(type(value) is int for value in values) else None

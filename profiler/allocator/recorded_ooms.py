"""Out-of-memory errors of the run itself, seen while it was recorded <-> a fact of the recording."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    device_free_bytes: int | None
    """What the driver had left; None where that was not recorded."""
    rank: int = 0
    """Of several processes, which."""


def oom_facts(ooms: Iterable[RecordedOom]) -> dict[str, Any]:
    """Return the fact that keeps the last of these errors; nothing where there were none."""
    last = [oom._asdict() for oom in ooms][-MAX_OOMS:]
    return {_FACT: last} if last else {}


def recorded_ooms(metadata: Metadata) -> list[RecordedOom]:
    """Return the errors that a recording names, in the order of time; what is none is left out."""
    listed = metadata.facts.get(_FACT, metadata.facts.get(_FIRST_FACT))
    found = [_oom(row) for row in listed[:MAX_OOMS]] if isinstance(listed, list) else []
    return [oom for oom in found if oom is not None]


def free_bytes_at_ooms(metadata: Metadata, device: int, rank: int, requested_bytes: Sequence[int]) -> list[int | None]:
    """Return what the driver had left at each error of one memory; None where the recording does not say, which keeps only the last ones.

    Args:
        metadata: of the recording.
        device: GPU index.
        rank: of several processes, which.
        requested_bytes: what each of the errors could not have, in the order of time.
    """
    known = [oom for oom in recorded_ooms(metadata) if (oom.device, oom.rank) == (device, rank)]
    free: list[int | None] = [None] * len(requested_bytes)
    for from_end in range(1, min(len(known), len(free)) + 1):
        if known[-from_end].requested_bytes == requested_bytes[-from_end]:
            free[-from_end] = known[-from_end].device_free_bytes
    return free


def _oom(row: Any) -> RecordedOom | None:
    given = RecordedOom._field_defaults | row if isinstance(row, dict) else {}
    values: dict[str, Any] = {name: given.get(name) for name in RecordedOom._fields}
    free = values.pop("device_free_bytes")
    whole = (free is None or type(free) is int) and all(type(value) is int for value in values.values())
    return RecordedOom(device_free_bytes=free, **values) if whole else None

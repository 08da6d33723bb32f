"""A Job, or toggles in their order, <-> the text that a link carries, so that a link opened on another machine can run it again.

Fields that have their defaults are left out, which keeps most links under 200 characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

from profiler.errors import SpecError
from profiler.planner.comparison import parse_toggles
from profiler.spec import Job, Toggle, Workload, canonical_json

MAX_CHARS = 6_000
"""Longer addresses are cut by mail programs and proxies; a job with a configuration that long travels as a recording file instead."""
_BETWEEN_TOGGLES = ";"


def job_to_text(job: Job) -> str | None:
    """Return the job as compact JSON, or None where it would make the link too long."""
    data = job.to_json()
    defaults = asdict(Workload())
    data["workload"] = {name: value for name, value in data["workload"].items() if value != defaults[name]}
    text = canonical_json({name: value for name, value in data.items() if value and (name, value) != ("device", "cpu")})
    return text if len(text) <= MAX_CHARS else None


def job_from_text(text: str) -> Job:
    """Return the job that a link carries.

    Raises:
        SpecError: the text is not a job.
    """
    if len(text) > MAX_CHARS:
        raise SpecError(
            f"The job in this link has {len(text):,} characters. At most {MAX_CHARS:,} are read; open the recording's file instead."
        )
    try:
        return Job.from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"The job in this link is not valid JSON ({error}). Copy the whole link, to its last character.") from None


def toggles_to_text(toggles: Iterable[Toggle]) -> str:
    """Return toggles, in their order, as a link carries them."""
    return _BETWEEN_TOGGLES.join(map(str, toggles))


def toggles_from_text(text: str) -> tuple[Toggle, ...]:
    """Return the toggles that a link carries.

    Raises:
        SpecError: the text names an optimization that is not known.
    """
    return parse_toggles(split_toggles(text))


def split_toggles(text: str) -> list[str]:
    """Return the text of each toggle that a link carries, whatever it names."""
    return [part for part in text[:MAX_CHARS].split(_BETWEEN_TOGGLES) if part.strip()]

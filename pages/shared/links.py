"""A Job <-> the text that a link carries, so that a link opened on another machine can run it again.

Fields that have their defaults are left out, which keeps most links under 200 characters.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from profiler.errors import SpecError
from profiler.spec import Job, Workload, canonical_json

MAX_CHARS = 6_000
"""Longer addresses are cut by mail programs and proxies; a job with a configuration that long travels as a recording file instead."""


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

"""A Job and what runs it -> the key under which the run store finds an equal run again."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from profiler.capture.nvml import Nvml
from profiler.capture.surroundings import library_versions
from profiler.devices import this_machine
from profiler.jobs.run import CAPTURE
from profiler.spec import Job, canonical_json


def run_key(job: Job, engine: str = CAPTURE) -> str:
    """Return 24 hexadecimal digits that are equal for runs whose recordings are interchangeable.

    They cover the Job, the engine, the versions of the libraries and of Headroom; what is measured also depends on the host and device.

    Args:
        job: what to run.
        engine: ``capture`` measures; any other does not depend on the machine.
    """
    parts: dict[str, Any] = {"job": job.to_json(), "engine": engine, "versions": versions()}
    if engine == CAPTURE:
        machine = this_machine()
        parts |= {"host": [machine.host, machine.cpu, machine.num_cores, machine.platform], "device": _gpu_names(job.device)}
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:24]


def versions() -> dict[str, str]:
    """Return what results depend on beside the question: the versions of the libraries, and a digest of Headroom's code."""
    return library_versions() | {"headroom": source_digest()}


@cache
def source_digest() -> str:
    """Return a digest of the source of this package: any change of the code gives another one."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _gpu_names(device: str) -> list[str]:
    """Return the names of the machine's GPUs where the job runs on one: a run on another GPU is another run."""
    if not device.startswith("cuda"):
        return []
    nvml = Nvml.open()
    if not isinstance(nvml, Nvml):
        return []
    names = [reading.name for reading in nvml.read()]
    nvml.close()
    return names

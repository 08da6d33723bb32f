"""The words of a run: its states, its limits, what was asked for, where it stands, and how it ended."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Self

from profiler.errors import SpecError
from profiler.recording import Provenance
from profiler.spec import Job

CAPTURE = "capture"
"""The engine that measures."""
SIMULATE = "simulate"
"""The engine that runs the workload on fake tensors."""
LARGEST_BATCH = "largest_batch"
"""The engine that simulates until it knows the largest batch that fits on the job's GPU."""
LONGEST_SEQUENCE = "longest_sequence"
"""The same for the sequence."""
SEARCHES = frozenset({LARGEST_BATCH, LONGEST_SEQUENCE})
SIMULATING = SEARCHES | {SIMULATE}
"""Engines that touch no device."""
MAX_SECONDS = 7 * 24 * 3600.0


def provenance_of(engine: str) -> Provenance:
    """Return how the numbers of an engine's runs are known."""
    return Provenance.MEASURED if engine == CAPTURE else Provenance.SIMULATED


class RunState(StrEnum):
    """Where a run stands. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen."""
        return self in (RunState.DONE, RunState.FAILED, RunState.CANCELLED)


class LivePoint(NamedTuple):
    """The worker's memory at one instant of the run."""

    t_seconds: float
    """Since the run started."""
    rss_bytes: int
    """Resident sets of the worker and its children; the largest since the previous point."""
    allocated_bytes: int | None
    """What live tensors hold, where the engine tells it."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may use before it is ended.

    Raises:
        SpecError: a limit is not positive.
    """

    memory_bytes: int | None = None
    """Resident sets of the worker and its children; None: what the machine has free when the run starts."""
    seconds: float = 3600.0

    def __post_init__(self) -> None:
        if self.memory_bytes is not None and self.memory_bytes <= 0:
            raise SpecError(f"A memory limit of {self.memory_bytes} bytes is not possible. Use a positive number, or none.")
        if not (math.isfinite(self.seconds) and 0 < self.seconds <= MAX_SECONDS):
            raise SpecError(f"A time limit of {self.seconds} s is not possible. Use more than 0 and at most {MAX_SECONDS:.0f}.")


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """A run at one instant, as a page or the command line shows it."""

    run_id: str
    state: RunState
    job: Job
    engine: str = CAPTURE
    owner: str | None = None
    """Who submitted it, in the caller's words."""
    phase: str = ""
    step: int = 0
    """Steps that are done, warm-up included."""
    num_steps: int = 0
    started: float | None = None
    """Seconds since the epoch; None while it waits."""
    seconds: float = 0.0
    """How long it has run, or ran."""
    live: tuple[LivePoint, ...] = ()
    message: str = ""
    """One sentence or two: why it failed, or where its result comes from."""
    recording_path: Path | None = None
    """The recording, once there is one; of a failed run it may be an incomplete one."""
    recording_id: str | None = None
    from_store: bool = False
    """The result was there already and nothing was run."""
    queue_position: int | None = None
    """1 is next; None unless it waits here."""
    refused: bool = False
    """The worker found that the job is not possible: what was asked is to be changed."""
    lost: bool = False
    """The worker ended without a word, so that the same run may end otherwise another time."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What was asked for."""

    job: Job
    key: str
    engine: str
    recording: Path
    """Where the recording goes."""
    submitted: float
    """Seconds since the epoch."""
    owner: str | None
    limits: Limits

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "job": self.job.to_json(), "recording": str(self.recording), "limits": asdict(self.limits)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Return the order of plain data.

        Raises:
            KeyError, TypeError, ValueError: the data is not an order.
        """
        special = {"job": Job.from_json(data["job"]), "recording": Path(data["recording"]), "limits": Limits(**data["limits"])}
        return cls(**{**data, **special})


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a run stands, and which processes are at it."""

    state: RunState
    manager: str
    """Tells the manager from others of its process."""
    manager_pid: int
    manager_created: float
    worker_pid: int | None = None
    worker_created: float | None = None
    started: float | None = None
    ended: float | None = None
    message: str = ""
    recording: str | None = None
    recording_id: str | None = None
    from_store: bool = False

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Return the standing of plain data.

        Raises:
            KeyError, TypeError, ValueError: the data is not a standing.
        """
        known = {field.name for field in fields(cls)}
        return cls(**{**{name: value for name, value in data.items() if name in known}, "state": RunState(data["state"])})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the worker says about how it ended."""

    done: bool
    message: str = ""
    refused: bool = False
    """The job is not possible."""


@dataclass(frozen=True)
class Ending:
    """How a run ended, in the manager's judgement."""

    state: RunState
    message: str = ""

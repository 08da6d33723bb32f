"""What a running engine tells the one who waits for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a run is."""

    step: int
    """Steps that are done, warm-up included."""
    num_steps: int
    """All steps, warm-up included."""
    phase: str
    """The phase that runs now, such as ``forward``, or ``build``."""
    allocated_bytes: int | None = None
    """Bytes held by live tensors on the profiled device, where known."""
    rss_bytes: int | None = None
    """Resident set of the worker, where known."""

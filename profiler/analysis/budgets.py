"""What a run took and what each memory may hold -> whether it stays under, and by how much: the device's and the host's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from profiler.analysis.footprint import Footprint
from profiler.units import format_bytes


class Tier(StrEnum):
    """A memory that has a budget of its own."""

    DEVICE = "device"
    """The GPU; for a run on the CPU its one memory."""
    HOST = "host"
    """What waits beside a GPU, pinned or not."""

    @property
    def budget_name(self) -> str:
        """What people call its budget."""
        return "host budget" if self is Tier.HOST else "budget"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A run held against the budget of one memory."""

    tier: Tier
    needed_bytes: int
    kind: str
    """How they are needed: ``reserved`` where an allocator tells, ``allocated``, or ``held`` on the host."""
    budget_bytes: int

    @property
    def left_bytes(self) -> int:
        """Budget minus need; negative where the run is over it."""
        return self.budget_bytes - self.needed_bytes

    @property
    def over_bytes(self) -> int:
        """How much too much; 0 for a run under its budget."""
        return max(-self.left_bytes, 0)

    @property
    def fits(self) -> bool:
        """Whether the run needs no more than the budget."""
        return self.left_bytes >= 0

    @property
    def phrase(self) -> str:
        """By how much, as ``2.00 GiB to spare, reserved``."""
        return f"{format_bytes(abs(self.left_bytes))} {'to spare' if self.fits else 'too much'}, {self.kind}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"budget_bytes": self.budget_bytes, "needed_bytes": self.needed_bytes, "over_bytes": self.over_bytes, "fits": self.fits}


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What each memory may hold; None is no budget."""

    device_bytes: int | None = None
    host_bytes: int | None = None

    def verdicts(self, run: Footprint) -> tuple[Verdict, ...]:
        """Return how a run stands to each budget that there is, the device's first.

        A device must have what the allocator reserves, where that is known. The host's is the most in pinned plus the most in other memory.
        """
        device = (Tier.DEVICE, run.reserved_bytes or run.peak_bytes, "reserved" if run.reserved_bytes else "allocated", self.device_bytes)
        host = (Tier.HOST, run.host_bytes, "held", self.host_bytes)
        return tuple(
            Verdict(tier=tier, needed_bytes=needed, kind=kind, budget_bytes=budget)
            for tier, needed, kind, budget in (device, host)
            if budget is not None
        )


NO_BUDGETS = Budgets()

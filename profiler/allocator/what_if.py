"""The same requests under other settings or on another card: what would have been reserved, and would it have fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.replay import Failure, Fragmentation, Replay
from profiler.allocator.replay import replay as replay_trace
from profiler.allocator.state import State
from profiler.allocator.trace import Trace
from profiler.units import MIB

_STEP_BYTES = 2 * MIB
"""All segments are multiples of this, so it is how finely the smallest card can be told."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting on one card."""

    name: str
    config: AllocatorConfig
    capacity_bytes: int | None
    peak_requested_bytes: int
    peak_allocated_bytes: int
    peak_active_bytes: int
    peak_reserved_bytes: int
    at_peak: Fragmentation
    num_segment_allocs: int
    """Calls of cudaMalloc, and mappings of expandable segments."""
    num_retries: int
    """Requests for which all cached segments had to be given back."""
    oom: Failure | None
    """Where memory ran out; the numbers then tell how far it came."""

    @classmethod
    def of(cls, name: str, run: Replay) -> Trial:
        """Return the numbers of a replay."""
        stats = run.stats
        return cls(
            name=name,
            config=run.config,
            capacity_bytes=run.capacity_bytes,
            peak_requested_bytes=stats.peak_requested_bytes,
            peak_allocated_bytes=stats.peak_allocated_bytes,
            peak_active_bytes=stats.peak_active_bytes,
            peak_reserved_bytes=stats.peak_reserved_bytes,
            at_peak=run.at_peak,
            num_segment_allocs=stats.num_device_alloc,
            num_retries=stats.num_alloc_retries,
            oom=run.oom,
        )


def compare(
    trace: Trace, configs: Mapping[str, AllocatorConfig], capacities: Sequence[int | None] = (None,), *, start: State = ()
) -> list[Trial]:
    """Return each setting on each card, in that order.

    Args:
        trace: the program's requests.
        configs: settings by the name to show.
        capacities: bytes that the allocator may reserve on each card; None: without limit.
        start: what was live before; it is allocated first under each setting, so that no setting inherits the cache of another.
    """
    trace = trace.preceded_by(start) if start else trace
    return [
        Trial.of(name, replay_trace(trace, config, Driver(capacity_bytes)))
        for name, config in configs.items()
        for capacity_bytes in capacities
    ]


def smallest_card(trace: Trace, config: AllocatorConfig | None = None, *, start: State = ()) -> int:
    """Return the bytes that the allocator must at least be able to reserve for the trace to pass, to 2 MiB.

    Found by bisection between the peak of live blocks, below which nothing passes, and what is reserved without a limit. Just above the
    result the allocator gives back cached segments and retries; in rare cases, other releases make a slightly larger card fail again.
    """
    config = config or AllocatorConfig()
    trace = trace.preceded_by(start) if start else trace
    unlimited = replay_trace(trace, replace(config, memory_fraction=None)).stats
    share = config.memory_fraction or 1.0
    low = _steps(unlimited.peak_requested_bytes) - 1
    high = _steps(int(unlimited.peak_reserved_bytes / share) + 1)
    while not _passes(trace, config, high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _passes(trace, config, middle) else (middle, high)
    return high * _STEP_BYTES


def _passes(trace: Trace, config: AllocatorConfig, steps: int) -> bool:
    return replay_trace(trace, config, Driver(steps * _STEP_BYTES)).oom is None


def _steps(num_bytes: int) -> int:
    return -(-num_bytes // _STEP_BYTES)

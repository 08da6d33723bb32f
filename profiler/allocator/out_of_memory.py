"""Why memory ran out: what was asked for, what was reserved but free and could not be used, and which setting would have let it pass.

Nothing is guessed: the failing replay is looked at where it stopped, and each setting is tried by a replay of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from profiler.allocator.blocks import Block
from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.replay import Replay, replay
from profiler.allocator.sizes import SMALL_BYTES, round_size
from profiler.allocator.state import BlockStatus, State
from profiler.allocator.trace import Trace
from profiler.allocator.what_if import Trial, compare, smallest_card
from profiler.units import MIB, format_bytes


class Unusable(Enum):
    """Why reserved memory that no tensor holds could not serve the request. The value says it to users."""

    TOO_SMALL = "in pieces smaller than the request, in segments that are partly in use"
    OTHER_POOL = "in the pool of the other size class (small: up to 1 MiB, large: above)"
    OTHER_STREAM = "kept for another stream"
    PENDING = "freed, but another stream still used it"
    NOT_TO_SPLIT = "in blocks that max_split_size_mb forbids to split"


@dataclass(frozen=True, slots=True)
class FreeShare:
    """Reserved memory that could not be used, for one reason."""

    why: Unusable
    bytes: int
    num_blocks: int
    largest_bytes: int


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """How things stood when memory ran out, and what would have helped.

    reserved_bytes == allocated_bytes + the sum of ``unusable``.
    """

    row: int
    """Row of the trace that was replayed."""
    requested_bytes: int
    segment_bytes: int
    """What the driver was asked for."""
    capacity_bytes: int
    """What could be reserved: the card's, or the share of it that the memory fraction allows."""
    reserved_bytes: int
    allocated_bytes: int
    largest_free_bytes: int
    """The largest free block of the pool and stream that were looked in."""
    unusable: tuple[FreeShare, ...]
    """Largest first."""
    live_bytes: Mapping[int, int]
    """The bytes of each block that was alive, by the trace's key."""
    tried: tuple[Trial, ...]
    """Other settings on the same card."""
    smallest_capacity_bytes: int
    """What would have to be reservable for the whole trace to pass under the settings as they are."""

    @property
    def unreserved_bytes(self) -> int:
        """What the card had left."""
        return self.capacity_bytes - self.reserved_bytes

    @property
    def remedies(self) -> list[Trial]:
        """The settings under which the whole trace passes, least reserved first."""
        return sorted((trial for trial in self.tried if trial.oom is None), key=lambda trial: trial.peak_reserved_bytes)

    def sentences(self) -> list[str]:
        """Return the explanation in words."""
        text = [
            f"{format_bytes(self.requested_bytes)} were requested; no free block was that large, and of the new segment of "
            f"{format_bytes(self.segment_bytes)} that this needs, the card had {format_bytes(self.unreserved_bytes)} left.",
            f"Of {format_bytes(self.reserved_bytes)} reserved, live tensors held {format_bytes(self.allocated_bytes)}; "
            f"the largest free block that could be used was {format_bytes(self.largest_free_bytes)}.",
        ]
        text += [f"{format_bytes(share.bytes)} were free but {share.why.value}." for share in self.unusable]
        if self.remedies:
            best = self.remedies[0]
            text.append(f"With {best.name} it passes on this card and reserves {format_bytes(best.peak_reserved_bytes)}.")
        elif self.tried:
            text.append(f"None of {len(self.tried)} other settings that were tried lets it pass; less has to be alive at once.")
        text.append(f"As the settings are, it needs {format_bytes(self.smallest_capacity_bytes)} for the allocator.")
        return text


def explain_out_of_memory(
    trace: Trace,
    config: AllocatorConfig,
    capacity_bytes: int,
    *,
    start: State = (),
    settings: Mapping[str, AllocatorConfig] | None = None,
    run: Replay | None = None,
) -> Explanation | None:
    """Replay the trace on a card and explain where memory runs out; None if it does not.

    Args:
        trace: the program's requests.
        config: the settings.
        capacity_bytes: what the allocator may reserve: the card less what lies outside (context, other processes).
        start: what was live before the trace.
        settings: what to try instead, by name; by default settings that are known to reduce fragmentation.
        run: the replay to explain, where it is another than the trace's: one that reproduces what was recorded, cached memory included.
    """
    trace = trace.preceded_by(start) if start else trace
    run = run or replay(trace, config, Driver(capacity_bytes))
    if run.oom is None:
        return None
    cause = run.oom.cause
    return Explanation(
        row=run.oom.row,
        requested_bytes=cause.requested_bytes,
        segment_bytes=cause.segment_bytes,
        capacity_bytes=cause.capacity_bytes or capacity_bytes,
        reserved_bytes=cause.reserved_bytes,
        allocated_bytes=cause.allocated_bytes,
        largest_free_bytes=cause.largest_free_bytes,
        unusable=_unusable(run),
        live_bytes={key: block.size for key, block in run.live.items() if block.allocated},
        tried=tuple(compare(trace, settings_to_try(config) if settings is None else settings, [capacity_bytes])),
        smallest_capacity_bytes=smallest_card(trace, config),
    )


def settings_to_try(config: AllocatorConfig) -> dict[str, AllocatorConfig]:
    """Return settings that may help where ``config`` fails, by the text a user would write; those of its torch version only."""
    split = {f"max_split_size_mb:{size}": replace(config, max_split_size_bytes=size * MIB) for size in (64, 128, 256, 512)}
    rounding = {
        f"roundup_power2_divisions:{number}": replace(config, roundup_power2_divisions=(number,) * len(config.roundup_power2_divisions))
        for number in (4, 8)
    }
    pages = {}
    if config.torch_version >= (2, 1):
        pages["expandable_segments:True"] = replace(config, expandable_segments=True)
    return {name: tried for name, tried in (pages | split | rounding).items() if tried != config}


def _unusable(run: Replay) -> tuple[FreeShare, ...]:
    """Return why each free block of the failed replay was of no use, added up."""
    assert run.oom is not None
    size = round_size(run.oom.cause.requested_bytes, run.config)
    found: dict[Unusable, list[int]] = defaultdict(list)
    for base in run.allocator.segments:
        for block in run.allocator.blocks(base):
            if block.mapped and not block.allocated:
                found[_why(block, size, run.oom.stream)].append(block.size)
    shares = [FreeShare(why, sum(sizes), len(sizes), max(sizes)) for why, sizes in found.items()]
    return tuple(sorted(shares, key=lambda share: -share.bytes))


def _why(block: Block, size: int, stream: int) -> Unusable:
    if block.status is BlockStatus.PENDING:
        return Unusable.PENDING
    if block.pool.is_small != (size <= SMALL_BYTES):
        return Unusable.OTHER_POOL
    if block.stream != stream:
        return Unusable.OTHER_STREAM
    return Unusable.TOO_SMALL if block.size < size else Unusable.NOT_TO_SPLIT

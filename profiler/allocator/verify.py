"""A recorded history, replayed decision by decision: did the model do what the real allocator did?

The driver's part is given by the history (where a new segment lies, when segments are given back); everything else is decided here and
compared. What the history says is then taken, so that one difference is counted once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from profiler.allocator import expandable
from profiler.allocator.allocator import CachingAllocator
from profiler.allocator.blocks import Block
from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.restore import restore
from profiler.allocator.state import BlockStatus, State
from profiler.allocator.stats import Stats
from profiler.allocator.trace import GROWTHS, RELEASES, Column, Kind, Trace

_PART_ROWS = 65_536
"""Replayed between two reports."""
_Range = tuple[str, int, int, int]
"""Action, address, bytes, stream."""


@dataclass(kw_only=True)
class Verification:
    """How many recorded decisions the model made too."""

    num_allocs: int = 0
    num_allocs_matched: int = 0
    """Allocations at the recorded address."""
    num_segments: int = 0
    num_segments_matched: int = 0
    """New segments and mappings: when, where and how big."""
    num_releases: int = 0
    num_releases_matched: int = 0
    """Segments given back and pages unmapped: which, and in which order."""
    num_final_blocks: int = 0
    num_final_blocks_matched: int = 0
    """Blocks at the end: address, bytes and status."""
    first_difference: str | None = None
    block_bytes: list[int] = field(default_factory=list)
    """What each allocation got, in their order: rounded, and with the slack of a block that was not split."""
    stats: Stats = field(default_factory=Stats)

    @property
    def is_exact(self) -> bool:
        """Whether every decision was the same."""
        return self.first_difference is None


def verify(
    trace: Trace, start: State, final: State, config: AllocatorConfig | None = None, progress: Callable[[float], None] | None = None
) -> Verification:
    """Replay ``trace`` from ``start`` under the settings it was recorded with, and compare every decision.

    Args:
        trace: a device's history, with recorded addresses as keys.
        start: the state before it (`undo`).
        final: the snapshot's segments.
        config: the settings that were in force.
        progress: called now and then with the share of the history that is replayed, 0 to 1.
    """
    check = _Check(config or AllocatorConfig(), start)
    rows = np.delete(np.arange(len(trace)), trace.frees_at_once)  # the completion alone frees a block just the same
    for first in range(0, len(rows), _PART_ROWS):
        _replay(check, trace, rows[first : first + _PART_ROWS])
        if progress is not None:
            progress(min((first + _PART_ROWS) / len(rows), 1.0))
    check.end(final)
    return check.result


def _replay(check: _Check, trace: Trace, rows: Column) -> None:
    """Replay some rows of a trace."""
    alloc, free_requested, free_completed = int(Kind.ALLOC), int(Kind.FREE_REQUESTED), int(Kind.FREE_COMPLETED)
    columns = (rows, trace.kind[rows], trace.key[rows], trace.bytes[rows], trace.stream[rows])
    for row, kind, key, num_bytes, stream in zip(*(column.tolist() for column in columns), strict=True):
        check.row = row
        if kind == alloc:
            check.alloc(key, num_bytes, stream)
        elif kind == free_completed:
            check.free_completed(key)
        elif kind == free_requested:
            check.free_requested(key)
        else:
            check.rare(Kind(kind), key, num_bytes, stream)


class _RecordedDriver(Driver):
    """Gives new segments the addresses that the history says come next."""

    def __init__(self, grown: list[_Range]) -> None:
        super().__init__()
        self._grown = grown

    def address_for(self, num_bytes: int) -> int:
        return self._grown[0][1] if self._grown else super().address_for(num_bytes)


class _Check:
    """The replay, and what it found."""

    def __init__(self, config: AllocatorConfig, start: State) -> None:
        self.row = 0
        self.result = Verification()
        self.grown: list[_Range] = []
        """What the history says was got from the driver and the model has not asked for yet."""
        self._run: list[_Range] = []
        """Releases without anything between them."""
        limited = config.max_split_size_bytes is not None or config.garbage_collection_threshold > 0
        self._releases_some = limited and not config.expandable_segments
        self._done: list[_Range] = []
        self._allocator = CachingAllocator(config, _RecordedDriver(self.grown), self._on_segment)
        self._blocks = restore(self._allocator, start)
        self.result.stats = self._allocator.stats

    def alloc(self, address: int, num_bytes: int, stream: int) -> None:
        """An allocation: the same segments before it, and the same address."""
        if self._run:
            self._end_of_releases()
        block = self._allocator.malloc(num_bytes, stream)
        assert isinstance(block, Block), "the recorded driver has no limit"
        if self.grown or self._done:
            self._compare_growth()
        self.result.block_bytes.append(block.size)
        if block.address == address:
            self.result.num_allocs_matched += 1
        else:
            self._differs(f"{num_bytes} bytes at {block.address:#x}, recorded {address:#x}")
        self._blocks[address] = block

    def free_requested(self, address: int) -> None:
        """A free that does not complete at once."""
        if self._run:
            self._end_of_releases()
        block = self._blocks.get(address)
        if block is not None and block.allocated:
            self._allocator.free_later(block)

    def free_completed(self, address: int) -> None:
        """A free that was requested before, or right now: no stream uses the block any more."""
        if self._run:
            self._end_of_releases()
        block = self._blocks.pop(address, None)
        if block is not None and block.allocated:
            self._allocator.free(block)
        elif block is not None:
            self._allocator.complete_free(block)

    def rare(self, kind: Kind, address: int, num_bytes: int, stream: int) -> None:
        """What was done with the driver. Releases in a row are compared once the run ends."""
        if kind in GROWTHS:
            self.grown.append((kind.name.lower(), address, num_bytes, stream))
        elif kind in RELEASES:
            if not self._run:
                self._take_growth()
            self._run.append((kind.name.lower(), address, num_bytes, stream))
        elif kind == Kind.OOM:
            self._take_growth()

    def _compare_growth(self) -> None:
        """Compare what the model asked of the driver for one request with what the history says."""
        self.result.num_segments += len(self.grown)
        if self._done == self.grown:
            self.result.num_segments_matched += len(self.grown)
        else:
            self._differs(f"{self._done} from the driver, recorded {self.grown}")
        self.grown.clear()
        self._done.clear()

    def _take_growth(self) -> None:
        """Take over pages that the history mapped for a request that then failed, because there were no more."""
        self._end_of_releases()
        for action, address, num_bytes, stream in self.grown:
            self.result.num_segments += 1
            unmapped = [b for pool in (self._allocator.small, self._allocator.large) for b in pool.unmapped.get(stream, ())]
            block = next((b for b in unmapped if b.address == address and b.size >= num_bytes), None)
            if action == "segment_map" and block is not None:
                expandable.map_pages(self._allocator, block, num_bytes)
            if self._done[-1:] == [(action, address, num_bytes, stream)]:
                self.result.num_segments_matched += 1
            else:
                self._differs(f"no use for {action} of {num_bytes} bytes at {address:#x}")
        self.grown.clear()
        self._done.clear()

    def end(self, final: State) -> None:
        """Compare what is left with the snapshot's segments."""
        self._end_of_releases()
        self.result.num_allocs = len(self.result.block_bytes)
        allocator = self._allocator
        own = {
            (block.address, block.size, block.status is BlockStatus.INACTIVE)
            for base in allocator.segments
            for block in allocator.blocks(base)
            if block.mapped
        }
        recorded = [
            (address, num_bytes, status is BlockStatus.INACTIVE) for segment in final for address, num_bytes, _, status in segment.blocks
        ]
        num_matched = len(own.intersection(recorded))
        self.result.num_final_blocks, self.result.num_final_blocks_matched = len(recorded), num_matched
        if not len(own) == len(recorded) == num_matched:
            self._differs(f"{len(own)} blocks at the end, recorded {len(recorded)}")

    def _end_of_releases(self) -> None:
        """Compare a run of releases, if there was one, with what the model gives back."""
        if not self._run:
            return
        run, self._run = self._run, []
        if self._releases_some:
            self._release_if_free(run)
        else:
            self._allocator.empty_cache()
        matched = sum(own == recorded for own, recorded in zip(self._done, run, strict=False))
        self.result.num_releases += len(run)
        self.result.num_releases_matched += matched
        if not len(self._done) == len(run) == matched:
            self._differs(f"{len(self._done)} given back, recorded {len(run)}, of which {matched} are the same")
        self._done.clear()

    def _release_if_free(self, run: list[_Range]) -> None:
        """Give back what the history says where that is allowed: these settings release some segments and keep others."""
        for _, address, num_bytes, _ in run:
            block = self._allocator.segments.get(address)
            if block is not None and block.is_available and not block.is_split and block.size == num_bytes:
                self._allocator.release_segment(block)

    def _on_segment(self, action: str, address: int, num_bytes: int, stream: int) -> None:
        self._done.append((action, address, num_bytes, stream))

    def _differs(self, text: str) -> None:
        if self.result.first_difference is None:
            self.result.first_difference = f"row {self.row}: {text}"

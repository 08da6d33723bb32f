"""Made-up programs for the allocator: what hypothesis draws, what they do, and the history a snapshot would have of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from profiler.allocator.allocator import CachingAllocator, OutOfMemory
from profiler.allocator.blocks import Block
from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.restore import snapshot
from profiler.allocator.state import State
from profiler.allocator.trace import KIND_OF_ACTION, Kind, Trace
from profiler.units import KIB, MIB

SETTINGS = (
    AllocatorConfig(),
    AllocatorConfig(expandable_segments=True),
    AllocatorConfig(max_split_size_bytes=32 * MIB),
    AllocatorConfig(roundup_power2_divisions=(4,) * 16),
    AllocatorConfig(memory_fraction=0.9, garbage_collection_threshold=0.5),
    AllocatorConfig(expandable_segments=True, roundup_power2_divisions=(8,) * 16),
)

_sizes = st.one_of(st.integers(1, 4 * KIB), st.integers(4 * KIB, 2 * MIB), st.integers(2 * MIB, 64 * MIB))
_steps = st.one_of(
    st.tuples(st.just("alloc"), _sizes, st.sampled_from([0, 0, 0, 7])),
    st.tuples(st.just("alloc"), _sizes, st.sampled_from([0, 0, 0, 7])),
    st.tuples(st.just("free"), st.integers(0, 1000), st.just(0)),
    st.tuples(st.just("free later"), st.integers(0, 1000), st.just(0)),
    st.tuples(st.just("done"), st.integers(0, 1000), st.just(0)),
    st.tuples(st.just("empty cache"), st.just(0), st.sampled_from([0])),
)
programs = st.lists(_steps, max_size=60)
Program = list[tuple[str, int, int]]


@dataclass
class Machine:
    """Runs a program and writes its history down."""

    config: AllocatorConfig = field(default_factory=AllocatorConfig)
    capacity_bytes: int | None = None
    rows: list[tuple[int, int, int, int]] = field(default_factory=list)
    live: list[Block] = field(default_factory=list)
    pending: list[Block] = field(default_factory=list)
    num_ooms: int = 0

    def __post_init__(self) -> None:
        driver = Driver(self.capacity_bytes, first_address=1 << 30)
        self.allocator = CachingAllocator(self.config, driver, self._on_segment)

    def step(self, action: str, number: int, stream: int) -> None:
        if action == "alloc":
            block = self.allocator.malloc(number, stream)
            if isinstance(block, OutOfMemory):
                self.rows.append((Kind.OOM, -1, number, stream))
                self.num_ooms += 1
            else:
                self.rows.append((Kind.ALLOC, block.address, number, stream))
                self.live.append(block)
        elif action in ("free", "free later") and self.live:
            self._free(self.live.pop(number % len(self.live)), later=action == "free later")
        elif action == "done" and self.pending:
            self._complete(self.pending.pop(number % len(self.pending)))
        elif action == "empty cache":
            self._synchronize()
            self.allocator.empty_cache()

    def trace(self, first_row: int = 0) -> Trace:
        kinds, keys, sizes, streams = zip(*self.rows[first_row:], strict=True) if self.rows[first_row:] else ((), (), (), ())
        return Trace.of(kinds, keys, sizes, streams)

    def state(self) -> State:
        return snapshot(self.allocator)

    def _free(self, block: Block, *, later: bool) -> None:
        self.rows.append((Kind.FREE_REQUESTED, block.address, block.requested, block.stream))
        if later:
            self.allocator.free_later(block)
            self.pending.append(block)
        else:
            self.rows.append((Kind.FREE_COMPLETED, block.address, block.requested, block.stream))
            self.allocator.free(block)

    def _complete(self, block: Block) -> None:
        self.rows.append((Kind.FREE_COMPLETED, block.address, block.requested, block.stream))
        self.allocator.complete_free(block)

    def _synchronize(self) -> None:
        for block in self.pending:
            self._complete(block)
        self.pending.clear()

    def _on_segment(self, action: str, address: int, num_bytes: int, stream: int) -> None:
        self.rows.append((KIND_OF_ACTION[action], address, num_bytes, stream))

"""What holds for every program under every setting."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.allocator.allocator import CachingAllocator
from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.replay import replay
from profiler.allocator.restore import restore, snapshot
from profiler.allocator.sizes import MIN_BLOCK_BYTES, SMALL_BYTES
from profiler.allocator.state import BlockStatus, active_bytes, reserved_bytes
from profiler.allocator.trace import Kind
from profiler.allocator.undo import undo
from profiler.allocator.verify import verify
from profiler.units import MIB
from tests.allocator.programs import SETTINGS, Machine, Program, programs

settings_drawn = st.sampled_from(SETTINGS)
capacities = st.sampled_from([20 * MIB, 60 * MIB, 200 * MIB, 4096 * MIB])


def run(program: Program, config: AllocatorConfig, capacity_bytes: int | None = 4096 * MIB) -> Machine:
    machine = Machine(config, capacity_bytes)
    for step in program:
        machine.step(*step)
    return machine


def check_invariants(machine: Machine) -> None:
    allocator = machine.allocator
    stats = allocator.stats
    allocated = pending = free = unmapped_seen = split = 0
    for base in allocator.segments:
        blocks = allocator.blocks(base)
        here = base
        for left, right in pairwise(blocks):
            assert left.next is right
            assert right.prev is left
            assert not (left.is_available and right.is_available and left.mapped == right.mapped), "two free neighbours"
        for block in blocks:
            assert block.address == here, "blocks tile the segment"
            here += block.size
            allocated += block.size if block.allocated else 0
            pending += block.size if block.status is BlockStatus.PENDING else 0
            if block.is_available and block.mapped:
                free += block.size
                split += block.size if block.is_split and not block.segment.expandable else 0
            unmapped_seen += not block.mapped
            if not block.mapped:
                assert (block.address - base) % block.segment.page_bytes == 0
                assert block.size % block.segment.page_bytes == 0
        assert here == base + blocks[0].segment.bytes
    assert allocated + pending + free == stats.reserved_bytes == allocator.driver.used_bytes
    assert (allocated, allocated + pending) == (stats.allocated_bytes, stats.active_bytes)
    assert split == allocator.inactive_split_bytes
    assert sum(block.requested for block in machine.live) == stats.requested_bytes <= stats.allocated_bytes
    listed = [block for pool in (allocator.small, allocator.large) for block in pool.free_blocks()]
    assert sum(block.size for block in listed) == free
    if machine.capacity_bytes is not None:
        assert stats.peak_reserved_bytes <= machine.capacity_bytes
    if allocator.allowed_bytes is not None:
        assert stats.peak_reserved_bytes <= allocator.allowed_bytes


@given(programs, settings_drawn, capacities)
def test_blocks_tile_segments_and_bytes_are_conserved_after_every_step(program: Program, config: AllocatorConfig, capacity: int) -> None:
    machine = Machine(config, capacity)
    for step in program:
        machine.step(*step)
        check_invariants(machine)


@given(programs, settings_drawn)
def test_a_block_is_at_most_its_rounding_and_allowed_slack_larger_than_asked(program: Program, config: AllocatorConfig) -> None:
    for block in run(program, config).live:
        slack = MIN_BLOCK_BYTES if block.pool.is_small or config.expandable_segments else SMALL_BYTES
        if config.max_split_size_bytes is not None and block.size >= config.max_split_size_bytes:
            slack = config.max_non_split_rounding_bytes
        if not any(config.roundup_power2_divisions):
            assert block.requested <= block.size < max(block.requested, MIN_BLOCK_BYTES) + slack + MIN_BLOCK_BYTES


@given(programs, settings_drawn)
def test_large_free_blocks_outside_expandable_segments_exceed_the_small_limit(program: Program, config: AllocatorConfig) -> None:
    allocator = run(program, config).allocator
    assert all(block.size > SMALL_BYTES for block in allocator.large.free_blocks() if not block.segment.expandable)


@given(programs, settings_drawn)
def test_empty_cache_leaves_only_segments_and_pages_in_use(program: Program, config: AllocatorConfig) -> None:
    machine = run(program, config)
    machine.step("empty cache", 0, 0)
    check_invariants(machine)
    for base in machine.allocator.segments:
        blocks = machine.allocator.blocks(base)
        assert any(block.allocated for block in blocks)
        for block in blocks:
            if block.is_available and block.mapped and block.segment.expandable:
                first_whole = -(-(block.address - base) // block.segment.page_bytes)
                assert (block.address + block.size - base) // block.segment.page_bytes <= first_whole, "a whole page was kept"


@given(programs, settings_drawn)
def test_freeing_everything_and_emptying_the_cache_gives_all_memory_back(program: Program, config: AllocatorConfig) -> None:
    machine = run(program, config)
    while machine.live:
        machine.step("free", 0, 0)
    machine.step("empty cache", 0, 0)
    stats = machine.allocator.stats
    assert (stats.reserved_bytes, stats.active_bytes, stats.requested_bytes, machine.allocator.segments) == (0, 0, 0, {})


@given(programs, settings_drawn, st.integers(0, 200))
def test_replay_of_a_history_makes_the_same_decisions_again(program: Program, config: AllocatorConfig, until: int) -> None:
    machine = run([step for step in program if step[0] != "empty cache"], config)
    stats = machine.allocator.stats
    runs = [replay(machine.trace(), config, Driver(4096 * MIB, first_address=1 << 30), series=True) for _ in range(2)]
    again, twice = runs
    if machine.num_ooms == 0:
        assert again.stats == stats == twice.stats
        assert again.segments() == machine.state()
    assert again.series is not None
    assert again.series.reserved_bytes.max(initial=0) == again.at_peak.reserved_bytes == again.stats.peak_reserved_bytes
    assert (again.series.allocated_bytes <= again.series.active_bytes).all()
    assert (again.series.active_bytes <= again.series.reserved_bytes).all()
    part = replay(machine.trace(), config, Driver(4096 * MIB), until_row=until)
    assert part.stats.peak_allocated_bytes <= again.stats.peak_allocated_bytes


@given(programs, settings_drawn)
def test_a_state_that_is_restored_is_the_same_state(program: Program, config: AllocatorConfig) -> None:
    state = run(program, config).state()
    allocator = CachingAllocator(config, Driver(4096 * MIB))
    restore(allocator, state)
    assert snapshot(allocator) == state
    assert allocator.stats.reserved_bytes == reserved_bytes(state)
    assert allocator.stats.active_bytes == active_bytes(state)


@pytest.mark.parametrize("config", [SETTINGS[0], SETTINGS[1], SETTINGS[3], SETTINGS[5]], ids=["default", "expandable", "roundup", "both"])
@given(program=programs, cut=st.floats(0, 1))
def test_undoing_any_tail_of_a_history_gives_the_state_where_it_was_cut(config: AllocatorConfig, program: Program, cut: float) -> None:
    machine = Machine(config)
    at_row = {0: machine.state()}
    for step in program:
        machine.step(*step)
        at_row[len(machine.rows)] = machine.state()
    first_row = sorted(at_row)[int(cut * (len(at_row) - 1))]
    tail, final = machine.trace(first_row), machine.state()
    start = undo(tail, final, config)
    expected = at_row[first_row]
    assert [(s.address, s.bytes, s.is_expandable) for s in start] == [(s.address, s.bytes, s.is_expandable) for s in expected]
    starts = [(block.address, block.status) for segment in start for block in segment.active_blocks]
    assert starts == [(block.address, block.status) for segment in expected for block in segment.active_blocks]
    if config.expandable_segments or first_row == 0:
        assert [segment.blocks for segment in start] == [segment.blocks for segment in expected]
        assert verify(tail, start, final, config).first_difference is None


@given(programs, settings_drawn)
def test_a_program_that_never_waits_has_a_history_that_verifies_from_empty(program: Program, config: AllocatorConfig) -> None:
    machine = run([step for step in program if step[0] != "empty cache"], config)
    released = any(kind in (Kind.SEGMENT_FREE, Kind.SEGMENT_UNMAP, Kind.OOM) for kind, *_ in machine.rows)
    if not released and config.memory_fraction is None:
        check = verify(machine.trace(), (), machine.state(), config)
        assert check.is_exact
        assert check.num_allocs == check.num_allocs_matched
        assert check.num_segments == check.num_segments_matched


def test_a_status_is_worded_as_torch_does() -> None:
    assert [status.value for status in BlockStatus] == ["active_allocated", "active_pending_free", "inactive"]

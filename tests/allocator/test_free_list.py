"""The lists of free blocks, against a sorted list that is searched from its beginning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from profiler.allocator.blocks import Block, FreeList, Pool, Segment
from profiler.allocator.config import AllocatorConfig
from profiler.units import MIB

SIZES = st.integers(1, 6).map(lambda number: number * MIB)
STEPS = st.lists(st.tuples(st.sampled_from(["put", "take", "take best"]), SIZES), max_size=60)


def a_pool() -> Pool:
    return Pool(AllocatorConfig(), is_small=False)


def listed(free: FreeList, least_size: int = 0) -> list[tuple[int, int]]:
    return [(block.size, block.address) for block in free.blocks(least_size)]


@given(STEPS)
def test_the_best_block_is_the_smallest_that_is_large_enough_and_of_those_the_lowest(steps: list[tuple[str, int]]) -> None:
    pool = a_pool()
    free, expected = pool.free_list(0), dict[tuple[int, int], Block]()
    for number, (step, size) in enumerate(steps):
        fitting = sorted(found for found in expected if found[0] >= size)
        if step == "put":
            address = (number * 7 % 60) * 100 * MIB  # neither rising nor falling, and each only once
            block = expected[size, address] = Block(Segment(pool, 0, address, size), address, size)
            free.put(block)
        elif step == "take" and fitting:
            free.take(expected.pop(fitting[-1]))
        elif step == "take best":
            assert free.take_best(size) is (expected.pop(fitting[0]) if fitting else None)
        assert listed(free) == sorted(expected)
        assert listed(free, size) == sorted(found for found in expected if found[0] >= size)
        assert pool.releasable_bytes == sum(size for size, _ in expected)


def test_sizes_that_nobody_has_any_more_are_forgotten_once_a_search_passes_over_them() -> None:
    pool = a_pool()
    free = pool.free_list(0)
    for number in range(1, 101):
        free.put(Block(Segment(pool, 0, number * MIB, number), number * MIB, number))
    for _ in range(99):
        free.take_best(1)
    largest = free.take_best(1)
    assert largest is not None
    assert largest.size == 100
    assert free.take_best(1) is None
    assert not free._sizes
    assert not free._addresses

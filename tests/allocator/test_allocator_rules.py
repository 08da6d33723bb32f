"""Decisions worked out by hand from the rules, one each."""

from __future__ import annotations

import pytest

from profiler.allocator.allocator import CachingAllocator, OutOfMemory
from profiler.allocator.blocks import Block
from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.sizes import round_size, segment_bytes
from profiler.errors import SpecError
from profiler.units import GIB, KIB, MIB


def held(allocator: CachingAllocator, requested: int, stream: int = 0) -> Block:
    """Allocate where there must be room."""
    block = allocator.malloc(requested, stream)
    assert isinstance(block, Block)
    return block


class Log(list[tuple[str, int]]):
    """What was asked of the driver: action and bytes."""

    def __call__(self, action: str, address: int, num_bytes: int, stream: int) -> None:
        self.append((action, num_bytes))


@pytest.mark.parametrize(
    ("requested", "rounded"),
    [(1, 512), (511, 512), (512, 512), (513, 1024), (1 * MIB, 1 * MIB), (1 * MIB + 1, 1 * MIB + 512), (10_000_001, 10_000_384)],
)
def test_sizes_are_rounded_to_512_bytes(requested: int, rounded: int) -> None:
    assert round_size(requested, AllocatorConfig()) == rounded


@pytest.mark.parametrize(
    ("requested", "rounded"),
    [
        (1200, 1536),  # not above 4 x 512: plain rounding
        (2048, 2048),
        (2049, 2560),  # quarters between 2048 and 4096 are 512 apart
        (1200 * MIB, 1280 * MIB),  # quarters between 1024 and 2048 MiB are 256 MiB apart
        (1024 * MIB, 1024 * MIB),
        (1792 * MIB + 1, 2048 * MIB),
    ],
)
def test_four_divisions_round_to_quarters_between_powers_of_two(requested: int, rounded: int) -> None:
    assert round_size(requested, AllocatorConfig.parse("roundup_power2_divisions:4")) == rounded


def test_divisions_by_size_apply_from_their_own_size_up_to_the_next() -> None:
    config = AllocatorConfig.parse("roundup_power2_divisions:[256:1,512:2,1024:4,>:8]")
    assert round_size(300 * MIB + 1, config) == 300 * MIB + 512
    assert round_size(600 * MIB, config) == 768 * MIB
    assert round_size(1300 * MIB, config) == 1536 * MIB
    assert round_size(2100 * MIB, config) == 2304 * MIB


def test_before_2_4_one_division_turned_all_rounding_off() -> None:
    text = "roundup_power2_divisions:1"
    assert round_size(3001, AllocatorConfig.parse(text, (2, 1))) == 3001
    assert round_size(3001, AllocatorConfig.parse(text, (2, 4))) == 3072


@pytest.mark.parametrize(
    ("size", "segment"),
    [
        (512, 2 * MIB),
        (1 * MIB, 2 * MIB),
        (1 * MIB + 512, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (11 * MIB, 12 * MIB),
    ],
)
def test_segments_are_2_mib_20_mib_or_the_size_rounded_to_2_mib(size: int, segment: int) -> None:
    assert segment_bytes(size, AllocatorConfig()) == segment


def test_a_large_block_keeps_a_rest_of_one_mib_and_gives_up_any_more() -> None:
    allocator = CachingAllocator()
    kept = held(allocator, 19 * MIB)  # its segment is 20 MiB
    split = held(allocator, 21 * MIB - 512)  # its segment is 22 MiB: 1 MiB and 512 B are left
    assert (kept.size, split.size) == (20 * MIB, 21 * MIB - 512)
    assert allocator.inactive_split_bytes == 1 * MIB + 512


def test_a_small_block_gives_up_512_bytes() -> None:
    allocator = CachingAllocator()
    block = held(allocator, 1)
    assert (block.size, allocator.stats.reserved_bytes) == (512, 2 * MIB)
    assert held(allocator, 512).address == block.address + 512


def test_the_smallest_block_that_fits_is_taken_and_of_equals_the_lowest() -> None:
    allocator = CachingAllocator()
    sizes = (40, 24, 24, 60)
    blocks = [held(allocator, size * MIB) for size in sizes]
    for block in blocks:
        allocator.free(block)
    assert held(allocator, 24 * MIB - 512).address == blocks[1].address
    assert held(allocator, 24 * MIB).address == blocks[2].address
    assert held(allocator, 24 * MIB).address == blocks[0].address


def test_free_neighbours_become_one_block() -> None:
    allocator = CachingAllocator()
    parts = [held(allocator, 4 * MIB) for _ in range(5)]
    for index in (0, 2, 4, 3, 1):
        allocator.free(parts[index])
    assert [block.size for block in allocator.large.free_blocks()] == [20 * MIB]


def test_streams_do_not_share_free_blocks() -> None:
    allocator = CachingAllocator()
    block = held(allocator, 30 * MIB, stream=1)
    allocator.free(block)
    assert held(allocator, 30 * MIB, stream=2).address != block.address
    assert held(allocator, 30 * MIB, stream=1).address == block.address


def test_a_block_used_by_another_stream_stays_active_until_that_stream_is_done() -> None:
    allocator = CachingAllocator()
    block = held(allocator, 30 * MIB)
    allocator.record_stream(block, 5)
    allocator.free(block)
    assert (allocator.stats.allocated_bytes, allocator.stats.active_bytes) == (0, 30 * MIB)
    assert held(allocator, 30 * MIB).address != block.address
    allocator.events_done()
    assert held(allocator, 30 * MIB).address == block.address


def test_use_on_its_own_stream_delays_nothing() -> None:
    allocator = CachingAllocator()
    block = held(allocator, 30 * MIB)
    allocator.record_stream(block, 0)
    allocator.free(block)
    assert allocator.stats.active_bytes == 0


def test_a_waiting_block_does_not_merge_with_its_neighbours() -> None:
    allocator = CachingAllocator()
    first, second, third = (held(allocator, 6 * MIB) for _ in range(3))
    allocator.free_later(second)
    allocator.free(first)
    allocator.free(third)
    assert [block.size for block in allocator.large.free_blocks()] == [6 * MIB, 8 * MIB]
    allocator.complete_free(second)
    assert [block.size for block in allocator.large.free_blocks()] == [20 * MIB]


def test_when_the_card_is_full_whole_free_segments_are_given_back_and_it_is_tried_again() -> None:
    log = Log()
    allocator = CachingAllocator(driver=Driver(100 * MIB), on_segment=log)
    allocator.free(held(allocator, 60 * MIB))
    held(allocator, 70 * MIB)
    assert log == [("segment_alloc", 60 * MIB), ("segment_free", 60 * MIB), ("segment_alloc", 70 * MIB)]
    assert (allocator.stats.num_alloc_retries, allocator.stats.num_ooms) == (1, 0)


def test_free_pieces_of_a_segment_in_use_do_not_help_a_full_card() -> None:
    allocator = CachingAllocator(driver=Driver(100 * MIB))
    large = held(allocator, 90 * MIB)
    allocator.free(large)
    held(allocator, 10 * MIB)
    error = allocator.malloc(85 * MIB)
    assert isinstance(error, OutOfMemory)
    assert (error.requested_bytes, error.segment_bytes) == (85 * MIB, 86 * MIB)
    assert (error.reserved_bytes, error.allocated_bytes, error.largest_free_bytes) == (90 * MIB, 10 * MIB, 80 * MIB)
    assert allocator.stats.num_ooms == 1


def test_pending_blocks_are_waited_for_before_memory_runs_out() -> None:
    allocator = CachingAllocator(driver=Driver(100 * MIB))
    allocator.free_later(held(allocator, 60 * MIB))
    held(allocator, 70 * MIB)
    assert allocator.stats.reserved_bytes == 70 * MIB


def test_the_memory_fraction_counts_the_segment_not_the_request() -> None:
    config = AllocatorConfig(memory_fraction=0.5)
    allocator = CachingAllocator(config, Driver(40 * MIB))
    assert isinstance(allocator.malloc(2 * MIB), Block)  # a segment of 20 MiB: exactly what is allowed
    assert isinstance(allocator.malloc(1), OutOfMemory)


def test_a_memory_fraction_of_an_unknown_card_is_refused() -> None:
    with pytest.raises(SpecError, match="needs the card's size"):
        CachingAllocator(AllocatorConfig(memory_fraction=0.5), Driver())


class TestMaxSplitSize:
    config = AllocatorConfig(max_split_size_bytes=64 * MIB)

    def test_a_large_block_is_not_split_for_a_small_request(self) -> None:
        allocator = CachingAllocator(self.config)
        large = held(allocator, 100 * MIB)
        allocator.free(large)
        assert held(allocator, 30 * MIB).address != large.address

    def test_a_large_request_takes_a_block_up_to_the_rounding_larger_and_keeps_all_of_it(self) -> None:
        allocator = CachingAllocator(self.config)
        large = held(allocator, 100 * MIB)
        allocator.free(large)
        block = held(allocator, 80 * MIB + 512)
        assert (block.address, block.size) == (large.address, 100 * MIB)
        allocator.free(block)
        assert held(allocator, 80 * MIB).address != large.address  # exactly 20 MiB larger is too much

    def test_only_as_many_unsplittable_blocks_as_needed_are_given_back(self) -> None:
        log = Log()
        allocator = CachingAllocator(self.config, Driver(400 * MIB), log)
        blocks = [held(allocator, size * MIB) for size in (70, 80, 90, 100)]
        for block in blocks:
            allocator.free(block)
        log.clear()
        held(allocator, 150 * MIB)
        assert log == [("segment_free", 100 * MIB), ("segment_free", 90 * MIB), ("segment_alloc", 150 * MIB)]
        assert allocator.stats.num_alloc_retries == 0

    def test_one_block_that_is_large_enough_is_given_back_alone(self) -> None:
        log = Log()
        allocator = CachingAllocator(self.config, Driver(300 * MIB), log)
        for block in [held(allocator, size * MIB) for size in (70, 200)]:
            allocator.free(block)
        log.clear()
        held(allocator, 100 * MIB)
        assert log == [("segment_free", 200 * MIB), ("segment_alloc", 100 * MIB)]


class TestGarbageCollection:
    config = AllocatorConfig(memory_fraction=1.0, garbage_collection_threshold=0.5)

    def test_the_segments_that_were_free_longest_are_given_back_first(self) -> None:
        log = Log()
        allocator = CachingAllocator(self.config, Driver(200 * MIB), log)
        old, new, in_use = (held(allocator, 40 * MIB) for _ in range(3))
        allocator.free(old)
        allocator.free(held(allocator, 30 * MIB))  # a look-up that takes and returns the old one, in two pieces that merge again
        allocator.free(new)
        log.clear()
        held(allocator, 60 * MIB)  # 120 of 200 MiB are reserved, over half: 20 MiB have to go
        assert in_use.allocated
        assert log[0] == ("segment_free", 40 * MIB)
        assert allocator.stats.num_alloc_retries == 0

    def test_nothing_is_collected_at_the_threshold(self) -> None:
        log = Log()
        allocator = CachingAllocator(self.config, Driver(200 * MIB), log)
        allocator.free(held(allocator, 100 * MIB))
        held(allocator, 20 * MIB, stream=3)
        assert [action for action, _ in log] == ["segment_alloc", "segment_alloc"]

    def test_blocks_younger_than_the_mean_age_stay(self) -> None:
        log = Log()
        allocator = CachingAllocator(self.config, Driver(200 * MIB), log)
        old, young, _ = held(allocator, 40 * MIB), held(allocator, 30 * MIB), held(allocator, 20 * MIB)
        elsewhere = held(allocator, 2 * MIB, stream=9)  # a segment of 20 MiB, so 110 of 200 MiB are reserved
        allocator.free(old)
        for _ in range(4):  # four look-ups go by
            allocator.free(elsewhere)
            elsewhere = held(allocator, 2 * MIB, stream=9)
        allocator.free(young)
        log.clear()
        held(allocator, 70 * MIB)
        assert log == [("segment_free", 40 * MIB), ("segment_alloc", 70 * MIB)]


class TestExpandableSegments:
    config = AllocatorConfig(expandable_segments=True)

    def test_pages_are_mapped_as_they_are_needed(self) -> None:
        log = Log()
        allocator = CachingAllocator(self.config, Driver(1 * GIB), log)
        first = held(allocator, 30 * MIB)
        second = held(allocator, 15 * MIB)
        assert second.address == first.address + 30 * MIB
        assert log == [("segment_map", 40 * MIB), ("segment_map", 20 * MIB)]
        held(allocator, 100)
        assert log[-1] == ("segment_map", 2 * MIB)

    def test_only_what_is_missing_behind_a_free_block_is_mapped(self) -> None:
        log = Log()
        allocator = CachingAllocator(self.config, Driver(1 * GIB), log)
        block = held(allocator, 40 * MIB)
        allocator.free(block)
        grown = held(allocator, 70 * MIB)
        assert (grown.address, log[-1]) == (block.address, ("segment_map", 40 * MIB))

    def test_blocks_keep_nothing_beyond_their_rounded_size(self) -> None:
        allocator = CachingAllocator(self.config, Driver(1 * GIB))
        assert held(allocator, 19 * MIB + 1).size == 19 * MIB + 512

    def test_whole_pages_inside_a_free_block_are_given_back(self) -> None:
        log = Log()
        allocator = CachingAllocator(self.config, Driver(1 * GIB), log)
        before, middle, after = held(allocator, 10 * MIB), held(allocator, 60 * MIB), held(allocator, 10 * MIB)
        allocator.free(middle)
        log.clear()
        allocator.empty_cache()
        assert log == [("segment_unmap", 40 * MIB)]  # of bytes 10 to 70 MiB the pages from 20 to 60
        assert (before.next is not None, after.prev is not None) == (True, True)
        assert allocator.stats.reserved_bytes == 40 * MIB

    def test_a_card_that_is_full_fails_although_addresses_are_left(self) -> None:
        allocator = CachingAllocator(self.config, Driver(100 * MIB))
        held(allocator, 60 * MIB)
        assert isinstance(allocator.malloc(60 * MIB), OutOfMemory)
        assert isinstance(allocator.malloc(40 * MIB), Block)

    def test_more_than_any_address_range_is_out_of_memory_too(self) -> None:
        allocator = CachingAllocator(self.config, Driver(100 * MIB))
        assert isinstance(allocator.malloc(1 * GIB), OutOfMemory)

    def test_an_emptied_segment_is_forgotten(self) -> None:
        allocator = CachingAllocator(self.config, Driver(100 * MIB))
        allocator.free(held(allocator, 30 * MIB))
        allocator.empty_cache()
        assert (allocator.segments, allocator.stats.reserved_bytes) == ({}, 0)


def test_stats_have_the_names_of_torch() -> None:
    allocator = CachingAllocator()
    allocator.free(held(allocator, 3 * MIB))
    held(allocator, 100 * KIB)
    stats = allocator.stats.to_torch(allocator.inactive_split_bytes)
    assert stats["allocated_bytes.all.current"] == 100 * KIB
    assert stats["allocated_bytes.all.peak"] == 3 * MIB
    assert stats["reserved_bytes.all.current"] == 22 * MIB
    assert stats["inactive_split_bytes.all.current"] == 2 * MIB - 100 * KIB
    assert (stats["num_device_alloc"], stats["num_alloc_retries"], stats["num_ooms"]) == (2, 0, 0)

"""The state before a history, worked out by hand."""

from __future__ import annotations

import pytest

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.state import BlockState, BlockStatus, SegmentState, State
from profiler.allocator.trace import Kind, Trace
from profiler.allocator.undo import undo
from profiler.allocator.verify import verify
from profiler.errors import FormatError
from profiler.units import MIB

BASE = 0x7F00_0000_0000
Row = tuple[Kind, int, int]


def history(*rows: Row, stream: int = 0) -> Trace:
    """Kinds, addresses in MiB from the base, MiB."""
    return Trace.of([row[0] for row in rows], [BASE + row[1] * MIB for row in rows], [row[2] * MIB for row in rows], [stream] * len(rows))


def freed(address: int, size: int) -> tuple[Row, Row]:
    return (Kind.FREE_REQUESTED, address, size), (Kind.FREE_COMPLETED, address, size)


def segment(address: int, size: int, *active: tuple[int, int], expandable: bool = False, stream: int = 0) -> SegmentState:
    blocks = [BlockState(BASE + start * MIB, length * MIB, length * MIB, BlockStatus.ALLOCATED) for start, length in active]
    return SegmentState.around(
        blocks, address=BASE + address * MIB, num_bytes=size * MIB, stream=stream, is_small=False, is_expandable=expandable
    )


def in_mib(state: State) -> list[tuple[int, int, list[tuple[int, int]]]]:
    return [
        ((found.address - BASE) // MIB, found.bytes // MIB, [((b.address - BASE) // MIB, b.bytes // MIB) for b in found.active_blocks])
        for found in state
    ]


def test_what_was_allocated_was_not_there_and_what_was_freed_was() -> None:
    trace = history((Kind.SEGMENT_ALLOC, 100, 30), (Kind.ALLOC, 100, 30), *freed(0, 8))
    final = (segment(0, 20, (8, 12)), segment(100, 30, (100, 30)))
    assert in_mib(undo(trace, final)) == [(0, 20, [(0, 8), (8, 12)])]


def test_a_gap_of_one_mib_behind_a_freed_block_was_its_slack() -> None:
    assert in_mib(undo(history(*freed(0, 19)), (segment(0, 20),))) == [(0, 20, [(0, 20)])]


def test_a_longer_gap_was_free() -> None:
    assert in_mib(undo(history(*freed(0, 18)), (segment(0, 20),))) == [(0, 20, [(0, 18)])]


def test_a_neighbour_that_was_there_at_the_same_time_ends_the_slack() -> None:
    trace = history((Kind.ALLOC, 9, 4), *freed(0, 8), *freed(9, 4))
    assert in_mib(undo(trace, (segment(0, 20),))) == [(0, 20, [(0, 9)])]


def test_a_neighbour_that_came_later_does_not() -> None:
    trace = history(*freed(0, 8), (Kind.ALLOC, 0, 12))
    assert in_mib(undo(trace, (segment(0, 20, (0, 12)),))) == [(0, 20, [(0, 8)])]


def test_expandable_segments_have_no_slack() -> None:
    config = AllocatorConfig(expandable_segments=True)
    assert in_mib(undo(history(*freed(0, 19)), (segment(0, 20, expandable=True),), config)) == [(0, 20, [(0, 19)])]


def test_a_segment_that_was_given_back_was_there() -> None:
    trace = history(*freed(50, 30), (Kind.SEGMENT_FREE, 50, 30))
    assert in_mib(undo(trace, (segment(0, 20, (0, 20)),))) == [(0, 20, [(0, 20)]), (50, 30, [(50, 30)])]


def test_one_unmapping_that_spans_several_mappings_is_cut() -> None:
    config = AllocatorConfig(expandable_segments=True)
    trace = history((Kind.SEGMENT_MAP, 20, 20), (Kind.ALLOC, 20, 20), *freed(20, 20), *freed(0, 20), (Kind.SEGMENT_UNMAP, 0, 40))
    final = (segment(40, 20, (40, 20), expandable=True),)
    assert in_mib(undo(trace, final, config)) == [(0, 20, [(0, 20)]), (40, 20, [(40, 20)])]
    assert verify(trace, undo(trace, final, config), final, config).first_difference is None


def test_a_block_freed_but_not_completed_before_the_history_was_pending() -> None:
    [found] = undo(history((Kind.FREE_COMPLETED, 0, 20)), (segment(0, 20),))
    assert found.active_blocks == [BlockState(BASE, 20 * MIB, 20 * MIB, BlockStatus.PENDING)]


def test_without_a_history_the_start_is_the_end() -> None:
    final = (segment(0, 20, (4, 8)),)
    assert undo(history(), final) == final


def test_segments_that_overlap_are_refused() -> None:
    with pytest.raises(FormatError, match="overlap"):
        undo(history(), (segment(0, 20), segment(10, 20)))


def test_a_block_outside_of_its_segment_is_refused() -> None:
    with pytest.raises(FormatError, match="outside its segment"):
        segment(0, 20, (15, 8))


def test_a_difference_is_counted_and_told() -> None:
    trace = history((Kind.ALLOC, 4, 8))  # the free block begins at 0
    check = verify(trace, (segment(0, 20),), (segment(0, 20, (4, 8)),))
    assert (check.num_allocs, check.num_allocs_matched, check.is_exact) == (1, 0, False)
    assert check.first_difference is not None
    assert check.first_difference.startswith("row 0: 8388608 bytes at")


def test_a_release_of_less_than_the_model_gives_back_is_a_difference() -> None:
    trace = history((Kind.SEGMENT_FREE, 0, 20), (Kind.ALLOC, 40, 20))
    start = (segment(0, 20), segment(40, 20))
    check = verify(trace, start, (segment(40, 20, (40, 20)),))
    assert (check.num_releases, check.num_releases_matched) == (1, 1)
    assert check.first_difference is not None
    assert check.first_difference == "row 1: 2 given back, recorded 1, of which 1 are the same"


def test_settings_that_release_only_some_segments_are_followed() -> None:
    trace = history((Kind.SEGMENT_FREE, 40, 20), (Kind.ALLOC, 0, 20))
    start = (segment(0, 20), segment(40, 20))
    config = AllocatorConfig(max_split_size_bytes=64 * MIB)
    assert verify(trace, start, (segment(0, 20, (0, 20)),), config).is_exact
    in_use = (segment(0, 20), segment(40, 20, (40, 20)))
    assert verify(trace, in_use, (segment(0, 20, (0, 20)),), config).num_releases_matched == 0


def test_a_completion_without_a_request_frees_its_block() -> None:
    trace = Trace.of([Kind.SEGMENT_ALLOC, Kind.ALLOC, Kind.FREE_COMPLETED], [BASE] * 3, [2 * MIB, 100, 100], [0] * 3)
    final = (SegmentState.around([], address=BASE, num_bytes=2 * MIB, stream=0, is_small=True),)
    assert verify(trace, (), final).is_exact
    held = SegmentState.around(
        [BlockState(BASE, 512, 100, BlockStatus.ALLOCATED)], address=BASE, num_bytes=2 * MIB, stream=0, is_small=True
    )
    assert not verify(trace, (), (held,)).is_exact

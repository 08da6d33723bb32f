"""The same program under other settings and on other cards."""

from __future__ import annotations

import time

import numpy as np
import pytest

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.out_of_memory import Unusable, explain_out_of_memory, settings_to_try
from profiler.allocator.recorded import recorded
from profiler.allocator.replay import replay
from profiler.allocator.state import BlockState, BlockStatus, SegmentState
from profiler.allocator.trace import Kind, Op, Trace
from profiler.allocator.what_if import compare, smallest_card
from profiler.recording import SEGMENTS, Action, Recording
from profiler.units import MIB
from tests.builders import Tape

DEFAULT = AllocatorConfig()
EXPANDABLE = AllocatorConfig(expandable_segments=True)


def program(*steps: tuple[str, int, int]) -> Trace:
    """Steps such as ``("alloc", 1, 30)`` and ``("free", 1, 30)``: action, name, MiB."""
    rows: list[tuple[int, int, int]] = []
    for action, name, size in steps:
        kinds = {"alloc": [Kind.ALLOC], "free": [Kind.FREE_REQUESTED, Kind.FREE_COMPLETED], "oom": [Kind.OOM]}[action]
        rows += [(kind, name, size * MIB) for kind in kinds]
    kinds, names, sizes = zip(*rows, strict=True)
    return Trace.of(kinds, names, sizes, [0] * len(rows))


GROWING = program(  # each request is a little larger than what was freed: cached segments are of no use
    *[step for number in range(8) for step in (("alloc", number, 20 + 4 * number), ("free", number, 20 + 4 * number))],
)
FRAGMENTED = program(  # every other of eight neighbours stays: 40 MiB are free in pieces of 10
    ("alloc", 99, 80),
    ("free", 99, 80),
    *[("alloc", number, 10) for number in range(8)],
    *[("free", number, 10) for number in range(0, 8, 2)],
    ("alloc", 100, 40),
)


def test_growing_requests_pile_up_segments_that_expandable_ones_reuse() -> None:
    default, expandable = compare(GROWING, {"default": DEFAULT, "expandable": EXPANDABLE})
    assert default.peak_reserved_bytes == sum(range(20, 52, 4)) * MIB
    assert expandable.peak_reserved_bytes == 60 * MIB  # three pages of 20 MiB hold 48
    assert default.peak_allocated_bytes == expandable.peak_allocated_bytes == 48 * MIB
    assert default.num_segment_allocs == 8
    assert default.at_peak.external == pytest.approx(1 - 48 / 272)


def test_a_smaller_card_makes_the_allocator_give_back_and_retry() -> None:
    [trial] = compare(GROWING, {"default": DEFAULT}, [100 * MIB])
    assert trial.oom is None
    assert trial.num_retries > 0
    assert trial.peak_reserved_bytes <= 100 * MIB


def test_the_smallest_card_holds_it_and_one_step_less_does_not() -> None:
    for trace in (GROWING, FRAGMENTED):
        for config in (DEFAULT, EXPANDABLE, AllocatorConfig(memory_fraction=0.5)):
            smallest = smallest_card(trace, config)
            assert replay(trace, config, Driver(smallest)).oom is None
            assert replay(trace, config, Driver(smallest - 2 * MIB)).oom is not None
    assert smallest_card(GROWING) == 48 * MIB
    assert smallest_card(FRAGMENTED) == 120 * MIB


def test_running_out_of_memory_is_explained_and_remedies_are_tried() -> None:
    found = explain_out_of_memory(FRAGMENTED, DEFAULT, 110 * MIB)
    assert found is not None
    assert (found.requested_bytes, found.segment_bytes) == (40 * MIB, 40 * MIB)
    assert (found.reserved_bytes, found.allocated_bytes, found.unreserved_bytes) == (80 * MIB, 40 * MIB, 30 * MIB)
    [share] = found.unusable
    assert (share.why, share.bytes, share.num_blocks, share.largest_bytes) == (Unusable.TOO_SMALL, 40 * MIB, 4, 10 * MIB)
    assert found.live_bytes == {1: 10 * MIB, 3: 10 * MIB, 5: 10 * MIB, 7: 10 * MIB}
    assert found.reserved_bytes == found.allocated_bytes + sum(share.bytes for share in found.unusable)
    assert found.smallest_capacity_bytes == 120 * MIB
    assert [trial.name for trial in found.remedies] == [trial.name for trial in found.tried if trial.oom is None]
    assert found.sentences()[0].startswith("40.0 MiB were requested")


def test_a_setting_that_helps_is_named() -> None:
    trace = program(("alloc", 0, 30), ("free", 0, 30), ("alloc", 1, 2), ("alloc", 2, 50))
    found = explain_out_of_memory(trace, DEFAULT, 70 * MIB)
    assert found is not None
    assert "expandable_segments:True" in [trial.name for trial in found.remedies]
    assert any(sentence.startswith("With ") and "it passes on this card" in sentence for sentence in found.sentences())


def test_free_memory_elsewhere_is_told_apart() -> None:
    rows = [  # small pool, another stream, waiting, and a block too large to split
        (Kind.ALLOC, 1, 1000, 0),
        (Kind.ALLOC, 2, 30 * MIB, 5),
        (Kind.ALLOC, 21, 2 * MIB, 5),
        (Kind.ALLOC, 22, 2 * MIB, 5),
        (Kind.FREE_REQUESTED, 21, 2 * MIB, 5),
        (Kind.FREE_COMPLETED, 21, 2 * MIB, 5),
        (Kind.ALLOC, 3, 70 * MIB, 0),
    ]
    kinds, keys, sizes, streams = zip(*rows, strict=True)
    found = explain_out_of_memory(Trace.of(kinds, keys, sizes, streams), DEFAULT, 100 * MIB, settings={})
    assert found is not None
    assert {share.why: share.bytes for share in found.unusable} == {
        Unusable.OTHER_POOL: 2 * MIB - 1024,
        Unusable.OTHER_STREAM: 18 * MIB,
    }
    assert found.tried == ()


def test_what_fits_needs_no_explanation() -> None:
    assert explain_out_of_memory(GROWING, DEFAULT, 500 * MIB) is None


def test_settings_of_the_own_version_are_tried_and_not_the_one_in_force() -> None:
    assert "expandable_segments:True" not in settings_to_try(AllocatorConfig(torch_version=(2, 0)))
    assert "expandable_segments:True" not in settings_to_try(EXPANDABLE)
    for text, config in settings_to_try(DEFAULT).items():
        assert AllocatorConfig.parse(text) == config


def test_a_recorded_failure_is_tried_again() -> None:
    trace = program(("alloc", 1, 50), ("oom", -1, 40))
    failed = replay(trace, DEFAULT, Driver(80 * MIB)).oom
    assert failed is not None
    assert (failed.row, failed.cause.requested_bytes) == (1, 40 * MIB)
    passed = replay(trace, DEFAULT, Driver(90 * MIB))
    assert (passed.oom, passed.stats.peak_reserved_bytes, passed.stats.allocated_bytes) == (None, 90 * MIB, 50 * MIB)


def test_releases_before_growth_are_the_allocators_and_others_are_the_programs() -> None:
    kinds = [Kind.ALLOC, Kind.SEGMENT_FREE, Kind.SEGMENT_FREE, Kind.SEGMENT_ALLOC, Kind.ALLOC, Kind.SEGMENT_UNMAP, Kind.FREE_REQUESTED]
    trace = Trace.of(kinds, range(7), [MIB] * 7, [0] * 7)
    assert [step[0] for step in trace.steps()] == [Op.ALLOC, Op.RETRY, Op.ALLOC, Op.EMPTY_CACHE, Op.FREE_REQUESTED]


def test_live_blocks_of_a_start_are_allocated_first() -> None:
    blocks = [BlockState(0, 4 * MIB, 4 * MIB - 5, BlockStatus.ALLOCATED), BlockState(8 * MIB, 4 * MIB, 0, BlockStatus.PENDING)]
    start = (SegmentState.around(blocks, address=0, num_bytes=20 * MIB, stream=3, is_small=False),)
    trace = program(("free", 0, 4)).preceded_by(start)
    assert list(trace.steps()) == [
        (Op.ALLOC, 0, 4 * MIB - 5, 3, 0),
        (Op.ALLOC, 8 * MIB, 4 * MIB, 3, 1),
        (Op.FREE_REQUESTED, 8 * MIB, 4 * MIB, 3, 2),
        (Op.FREE, 0, 4 * MIB, 0, 3),
    ]
    assert trace.source_row.tolist() == [-1, -1, -1, 0, 1]
    [trial] = compare(program(("free", 0, 4)), {"default": DEFAULT}, start=start)
    assert trial.peak_reserved_bytes == 20 * MIB


def recorded_on_a_gpu() -> Recording:
    tape = Tape(device=0)
    weights = tape.preexisting(30 * MIB)
    tape.alloc(0)
    batch = tape.alloc(5 * MIB)
    tape.free(batch)
    tape.free(weights, Action.FREE_REQUESTED)
    tape.free(weights)
    return tape.recording()


def test_a_recording_becomes_a_trace() -> None:
    recording = recorded_on_a_gpu()
    trace = Trace.from_recording(recording)
    assert trace.kind.tolist() == [Kind.ALLOC, Kind.ALLOC, Kind.FREE_COMPLETED, Kind.FREE_REQUESTED, Kind.FREE_COMPLETED]
    assert trace.source_row.tolist() == [0, 2, 3, 4, 5]
    run = replay(trace)
    assert (run.stats.peak_allocated_bytes, run.stats.peak_reserved_bytes) == (35 * MIB, 50 * MIB)
    assert (run.stats.allocated_bytes, run.stats.active_bytes, run.live) == (0, 0, {})
    assert len(Trace.from_recording(recording, device=1)) == 0


def test_releases_of_a_recording_are_put_where_they_happened() -> None:
    recording = recorded_on_a_gpu()
    columns = {"time_us": [35.0], "device": [0], "rank": [0], "action": ["segment_free"], "address": [0], "bytes": [20 * MIB]}
    released = SEGMENTS.empty_table().from_pydict({**columns, "stream": [0], "stack": [-1]}, schema=SEGMENTS)
    trace = Trace.from_recording(Recording(recording.metadata, recording.events, segments=released))
    assert [step[0] for step in trace.steps()] == [Op.ALLOC, Op.ALLOC, Op.FREE_COMPLETED, Op.EMPTY_CACHE, Op.FREE]
    assert replay(trace).stats.num_device_free == 1


def test_twenty_settings_of_a_step_of_twenty_thousand_events_take_less_than_two_seconds() -> None:
    random = np.random.default_rng(0)
    sizes = (2 ** random.uniform(9, 26, 14_000)).astype(int).tolist()
    steps: list[tuple[int, int, int]] = []
    live: list[int] = []
    for name, size in enumerate(sizes):
        steps.append((Kind.ALLOC, name, size))
        live.append(name)
        if len(live) > 800 or name % 3:
            gone = live.pop(int(random.integers(len(live))))
            steps.append((Kind.FREE_COMPLETED, gone, sizes[gone]))
    kinds, names, requested = zip(*steps[:20_000], strict=True)
    trace = Trace.of(kinds, names, requested, [0] * len(kinds))
    assert len(trace) == 20_000
    configs = {f"{megabytes}": AllocatorConfig(max_split_size_bytes=megabytes * MIB) for megabytes in range(30, 80, 5)}
    configs |= {f"{number}": AllocatorConfig(roundup_power2_divisions=(1 << number,) * 16) for number in range(9)}
    began = time.process_time()
    trials = compare(trace, configs | {"expandable": EXPANDABLE})
    assert len(trials) == 20
    assert time.process_time() - began < 2.0


def test_each_rank_has_a_memory_of_its_own() -> None:
    tape = Tape(device=0, rank=1)
    tape.alloc(3 * MIB)
    recording = tape.recording()
    assert len(Trace.from_recording(recording)) == 0
    assert Trace.from_recording(recording, rank=1).bytes.tolist() == [3 * MIB]
    found = recorded(recording, 0, rank=1)
    assert found.trace.bytes.tolist() == [3 * MIB]
    assert (found.start, found.knows_segments) == ((), False)

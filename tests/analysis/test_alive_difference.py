"""What is alive in one recording and not in the other: rows by hand, and the sums that always hold."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.alive_difference import NOT_KNOWN, Side, alive_difference
from profiler.recording import STACKS, Phase, Recording, Role
from tests.builders import Tape, small_training

SCRIPT = "/job/train.py:10:<module>"


def with_stacks(tape: Tape, *stacks: str) -> Recording:
    rows = pa.table({"stack": pa.array(range(len(stacks)), pa.int32()), "frames": list(stacks)}, schema=STACKS)
    return replace(tape.recording(), stacks=rows)


def rows(before: Recording, after: Recording) -> list[tuple[object, ...]]:
    return list(alive_difference(Side.at_end(before), Side.at_end(after)).table.itertuples(index=False, name=None))


def test_a_leak_is_one_row_with_its_calls_and_category() -> None:
    early, late = Tape(), Tape()
    for tape, count in ((early, 1), (late, 4)):
        with tape.phase(Phase.FORWARD):
            for _ in range(count):
                tape.alloc(100, stack=0, roles=Role.SAVED)
            tape.free(tape.alloc(900, stack=0))
    stack = f"/job/model.py:7:forward\n{SCRIPT}"

    found = rows(with_stacks(early, stack), with_stacks(late, stack))

    assert found == [("<module> (train.py:10) > forward (model.py:7)", "Activation", 100, 1, 4, 300)]


def test_lines_and_folders_do_not_tell_blocks_apart_but_functions_and_sizes_do() -> None:
    before, after = Tape(), Tape()
    for tape in (before, after):
        for stack, size in ((0, 64), (1, 64), (0, 128)):
            tape.alloc(size, stack=stack)
    after.alloc(256, stack=1)
    old = ("/a/model.py:7:forward\n/a/train.py:10:<module>", "/a/model.py:9:backward\n/a/train.py:10:<module>")
    new = ("/b/c/model.py:70:forward\n/b/c/train.py:11:<module>", "/b/c/model.py:90:backward\n/b/c/train.py:11:<module>")

    found = rows(with_stacks(before, *old), with_stacks(after, *new))

    assert [(row[0], row[2], row[5]) for row in found] == [("<module> (train.py:11) > backward (model.py:90)", 256, 256)]


def test_without_call_stacks_module_tensor_and_operator_tell_where_a_block_was_made() -> None:
    before, after = Tape(), Tape()
    after.alloc(64, module="h.0", tensor="h.0.weight", operator="aten::mm")
    after.alloc(32)

    assert [row[0] for row in rows(before.recording(), after.recording())] == ["h.0 > h.0.weight > aten::mm", NOT_KNOWN]


def test_the_peaks_of_two_runs_can_be_compared() -> None:
    found = alive_difference(Side.at_end(small_training()), Side.at_peak(small_training()))

    assert found.before_bytes == 1_200, "weights and optimizer state"
    assert found.after_bytes == 2_000
    assert found.same_bytes == 1_200
    assert found.more_bytes == 800
    assert found.less_bytes == 0


def test_a_recording_without_events_has_nothing_alive() -> None:
    found = alive_difference(Side.at_end(Tape().recording()), Side.at_end(small_training()))

    assert (found.before_bytes, found.more_bytes) == (0, 1_200)


@st.composite
def tapes(draw: st.DrawFn) -> Tape:
    tape = Tape()
    held = []
    for size, stack, drop in draw(st.lists(st.tuples(st.sampled_from([64, 128, 512]), st.integers(0, 2), st.booleans()), max_size=25)):
        held.append(tape.alloc(size, stack=stack))
        if drop:
            tape.free(held.pop(0))
    return tape


@given(tapes(), tapes())
def test_the_rows_add_up_to_what_changed_and_the_other_way_round_is_their_negative(one: Tape, other: Tape) -> None:
    stacks = [f"/job/model.py:{line}:function_{line}\n{SCRIPT}" for line in range(3)]
    first, second = Side.at_end(with_stacks(one, *stacks)), Side.at_end(with_stacks(other, *stacks))

    there, back = alive_difference(first, second), alive_difference(second, first)

    assert there.table["difference_bytes"].sum() == there.after_bytes - there.before_bytes
    assert there.same_bytes + there.more_bytes == there.after_bytes
    assert there.same_bytes + there.less_bytes == there.before_bytes
    assert (there.more_bytes, there.same_bytes) == (back.less_bytes, back.same_bytes)
    assert there.before_bytes == first.timeline.total[-1] if len(first.timeline.total) else there.before_bytes == 0

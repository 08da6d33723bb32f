"""Blocks: births and ends from the event rows, and what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from profiler.analysis.blocks import Blocks, Lane
from profiler.errors import FormatError
from profiler.recording import EVENTS, Action, Phase, Recording, Role
from tests.builders import Tape, metadata, small_training


def test_a_block_has_its_birth_its_end_and_its_names() -> None:
    tape = Tape()
    with tape.step(3), tape.phase(Phase.FORWARD):
        block = tape.alloc(64, module="h.0", operator="aten::mm", dtype="float32", shape="4x4", tensor="x", address=4096)
    tape.alloc(1)
    tape.free(block)

    blocks = Blocks.of(tape.recording())

    assert (blocks.birth_event[0], blocks.death_event[0], blocks.bytes[0], blocks.step[0]) == (0, 2, 64, 3)
    assert [column.text(0) for column in (blocks.module, blocks.operator, blocks.dtype, blocks.shape, blocks.tensor)] == [
        "h.0",
        "aten::mm",
        "float32",
        "4x4",
        "x",
    ]
    assert (blocks.module.text(1), blocks.address[0], blocks.address[1]) == ("", 4096, -1)


def test_a_block_that_is_never_freed_ends_after_the_last_event() -> None:
    tape = Tape()
    tape.alloc(1)
    tape.alloc(2)

    blocks = Blocks.of(tape.recording())

    assert blocks.death_event.tolist() == [2, 2]
    assert blocks.death_us.tolist() == [10.0, 10.0]


def test_allocated_falls_where_the_free_is_requested_not_where_it_completes() -> None:
    tape = Tape()
    both, only_completed = tape.alloc(1), tape.alloc(2)
    tape.free(both, Action.FREE_REQUESTED)
    tape.free(both, Action.FREE_COMPLETED)
    tape.free(only_completed, Action.FREE_COMPLETED)

    assert Blocks.of(tape.recording()).death_event.tolist() == [2, 4]


def test_an_allocators_rounded_size_counts_where_there_is_one() -> None:
    tape = Tape()
    tape.alloc(100, block_bytes=512)
    tape.alloc(100)

    assert Blocks.of(tape.recording()).bytes.tolist() == [512, 100]


def test_frees_of_blocks_without_birth_are_counted_and_change_nothing() -> None:
    tape = Tape()
    lost = tape.alloc(5)
    tape.free(lost)
    tape.alloc(7)
    del tape.rows[0]

    blocks = Blocks.of(tape.recording())

    assert (blocks.bytes.tolist(), blocks.num_unmatched_frees) == ([7], 1)


def test_lanes_are_gpus_first_then_the_host_then_pinned_memory() -> None:
    tape = Tape()
    for device, rank in ((-2, 0), (-1, 0), (1, 0), (0, 1), (0, 0)):
        tape.alloc(1, device=device, rank=rank)

    lanes = Blocks.of(tape.recording()).lanes()

    assert lanes == [Lane(0, 0), Lane(0, 1), Lane(1, 0), Lane(-1, 0), Lane(-2, 0)]
    assert [lane.label for lane in lanes] == ["GPU 0", "GPU 0, rank 1", "GPU 1", "Host", "Pinned host"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": 0, "action": "alloc"}, r"Block 0 is born twice, at events 0 and 1"),
        ({"requested_bytes": -5, "action": "alloc"}, r"Event 1 allocates -5 bytes"),
        ({"time_us": float("nan")}, r"Event 1 has no time"),
        ({"time_us": None}, r"Event 1 has no time"),
    ],
)
def test_events_that_cannot_be_are_refused_with_the_place(change: dict[str, object], message: str) -> None:
    tape = Tape()
    tape.alloc(3)
    tape.alloc(4)
    tape.rows[1] |= change

    with pytest.raises(FormatError, match=message):
        Blocks.of(tape.recording())


def test_a_free_before_its_birth_is_refused() -> None:
    tape = Tape()
    block = tape.alloc(3)
    tape.free(block)
    tape.rows.reverse()
    for row, time_us in zip(tape.rows, (0.0, 10.0), strict=True):
        row["time_us"] = time_us

    with pytest.raises(FormatError, match="Event 0 frees block 0 before its birth"):
        Blocks.of(tape.recording())


def test_a_recording_without_events_has_no_blocks() -> None:
    blocks = Blocks.of(Recording(metadata=metadata(), events=EVENTS.empty_table()))

    assert (len(blocks), blocks.num_events, blocks.lanes()) == (0, 0, [])


def test_parts_with_their_own_dictionaries_read_as_one_table() -> None:
    recording = small_training()
    parts = pa.concat_tables([recording.events.slice(0, 7), recording.events.slice(7)])
    whole, cut = Blocks.of(recording), Blocks.of(Recording(metadata=metadata(), events=parts, marks=recording.marks))

    assert np.array_equal(whole.category, cut.category)
    assert whole.module.texts().tolist() == cut.module.texts().tolist()


def test_weights_gradients_and_optimizer_states_belong_to_the_module_that_owns_the_parameter() -> None:
    tape = Tape()
    tape.preexisting(1, roles=Role.PARAMETER, tensor="h.0.fc.weight")
    tape.alloc(1, roles=Role.GRADIENT, tensor="h.0.fc.weight.grad", module="Model")
    tape.alloc(1, roles=Role.OPTIMIZER_STATE, tensor="h.0.fc.weight.exp_avg")
    tape.alloc(1, roles=Role.OPTIMIZER_STATE, tensor="step")
    tape.alloc(1, roles=Role.SAVED, tensor="h.0.fc.weight", module="h.1")
    tape.preexisting(1, roles=Role.PARAMETER, tensor="bare")

    modules = Blocks.of(tape.recording()).module.texts().tolist()

    assert modules == ["h.0.fc", "h.0.fc", "h.0.fc", "", "h.1", ""]

"""Who owns the memory: tables of the living, the module tree, search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.attribution import alive_at, group_at, module_tree, top_allocations
from profiler.analysis.timeline import Timeline
from profiler.recording import Recording, Role
from tests.analysis.histories import recordings
from tests.builders import Tape, small_training, synthetic_recording


@given(recordings(), st.data())
def test_the_living_blocks_and_their_groups_sum_to_the_total(recording: Recording, data: st.DataObject) -> None:
    timeline = Timeline.of(recording)
    if not timeline.num_events:
        return
    event = data.draw(st.integers(0, timeline.num_events - 1))

    table = alive_at(timeline, event)

    assert int(table["bytes"].sum()) == timeline.total[event]
    assert table["bytes"].is_monotonic_decreasing
    for column in ("category", "module", "phase"):
        assert int(group_at(timeline, event, column)["bytes"].sum()) == timeline.total[event]


@given(recordings(), st.integers(3, 20), st.data())
def test_the_module_tree_is_exact_however_far_it_is_cut(recording: Recording, max_nodes: int, data: st.DataObject) -> None:
    timeline = Timeline.of(recording)
    if not timeline.num_events:
        return
    event = data.draw(st.integers(0, timeline.num_events - 1))

    tree = module_tree(timeline, event, max_nodes)

    assert len(tree) <= max_nodes
    assert tree["bytes"].iloc[0] == timeline.total[event]
    assert tree["id"].is_unique
    for row in tree.itertuples():
        children = tree[tree["parent"] == row.id]["bytes"].sum()
        assert row.own_bytes + children == row.bytes
        assert row.parent == "" or row.parent in set(tree["id"])


def test_layers_stand_in_the_order_of_their_numbers() -> None:
    tape = Tape()
    for layer in (10, 2, 1):
        tape.alloc(layer, module=f"h.{layer}")

    tree = module_tree(Timeline.of(tape.recording()), 2)

    assert tree["id"].tolist() == ["all", "all.h", "all.h.1", "all.h.2", "all.h.10"]
    assert tree["bytes"].tolist() == [13, 13, 1, 2, 10]


def test_a_model_is_the_parent_of_its_outermost_modules() -> None:
    tape = Tape()
    for size, module in ((1, "Net"), (2, "body.0"), (4, "head"), (8, "CrossEntropyLoss"), (16, None)):
        tape.alloc(size, module=module)
    layers = {"Net": ["body", "head"], "CrossEntropyLoss": []}

    tree = module_tree(Timeline.of(tape.recording(facts={"layers": layers})), 4)

    found = dict(zip(tree["id"], tree["bytes"], strict=True))
    assert found == {
        "all": 31,
        "all.(no module)": 16,
        "all.CrossEntropyLoss": 8,
        "all.Net": 7,
        "all.Net.body": 2,
        "all.Net.body.0": 2,
        "all.Net.head": 4,
    }


@pytest.mark.parametrize("layers", [None, 5, {"Net": 5}, {"Net": [["body"], 7]}, {"body": ["body"]}])
def test_a_recording_that_names_no_layers_has_them_beside_each_other(layers: object) -> None:
    tape = Tape()
    tape.alloc(1, module="Net")
    tape.alloc(2, module="body")

    assert module_tree(Timeline.of(tape.recording(facts={"layers": layers})), 1)["id"].tolist() == ["all", "all.Net", "all.body"]


def test_a_module_name_of_any_depth_makes_a_bounded_tree() -> None:
    tape = Tape()
    tape.alloc(1, module=".".join("abc" * 500))

    assert len(module_tree(Timeline.of(tape.recording()), 0)) < 40


def test_alive_at_tells_where_a_block_was_born_and_when_it_goes() -> None:
    timeline = Timeline.of(small_training())

    table = alive_at(timeline, timeline.peak_event)

    gradient = table[table["category"] == "Gradient"].iloc[0]
    assert (gradient["tensor"], gradient["bytes"], gradient["phase"], gradient["step"]) == ("fc.weight.grad", 400, "backward", 1)
    assert gradient["freed_us"] > gradient["born_us"]
    assert np.isnan(table[table["category"] == "Parameter"]["freed_us"].iloc[0])


def test_search_finds_every_word_in_any_column() -> None:
    timeline = Timeline.of(small_training(num_steps=2))

    both = top_allocations(timeline, "FC activation")
    addmm = top_allocations(timeline, "addmm")
    none = top_allocations(timeline, "convolution")

    assert set(both.table["category"]) == {"Activation", "Activation gradient"}
    assert (addmm.num_matching, addmm.matching_bytes) == (2, 400)
    assert (none.num_matching, len(none.table)) == (0, 0)


def test_a_limit_keeps_the_largest_and_says_how_many_there_were() -> None:
    timeline = Timeline.of(synthetic_recording(2_000))

    found = top_allocations(timeline, limit=5)

    assert len(found.table) == 5
    assert found.num_matching == len(timeline.members)
    assert found.table["bytes"].iloc[0] == timeline.blocks.bytes.max()


def test_search_among_the_living_leaves_out_the_rest() -> None:
    tape = Tape()
    tape.free(tape.alloc(5, roles=Role.SAVED, module="gone"))
    tape.alloc(6, module="here")
    timeline = Timeline.of(tape.recording())

    assert top_allocations(timeline, event=2).table["module"].tolist() == ["here"]
    assert top_allocations(timeline).num_matching == 2

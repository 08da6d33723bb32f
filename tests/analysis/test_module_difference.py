"""What each module holds more or less: exact sums, and layers taken together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.alive_difference import Side, alive_difference
from profiler.analysis.module_difference import module_difference
from profiler.analysis.module_tree import NO_MODULE
from tests.builders import Tape

MODULES = st.sampled_from(["", "embed", "layers.0.mlp", "layers.1.mlp", "layers.12.attn.q", "head"])
BLOCKS = st.lists(st.tuples(MODULES, st.integers(1, 2**40)), max_size=20)


def side(blocks: list[tuple[str, int]]) -> Side:
    tape = Tape()
    for module, size in blocks:
        tape.alloc(size, **({"module": module} if module else {}))
    return Side.at_peak(tape.recording())


@given(BLOCKS, BLOCKS)
def test_differences_sum_to_the_difference_of_what_is_alive(before: list[tuple[str, int]], after: list[tuple[str, int]]) -> None:
    table = module_difference(side(before), side(after))
    assert table["difference_bytes"].sum() == sum(size for _, size in after) - sum(size for _, size in before)
    assert (table["after_bytes"] - table["before_bytes"] == table["difference_bytes"]).all()
    assert table["difference_bytes"].abs().is_monotonic_decreasing


def test_layers_are_one_row_and_blocks_without_a_module_have_their_own() -> None:
    table = module_difference(
        side([("layers.0.mlp", 10), ("layers.1.mlp", 10), ("head", 5)]), side([("layers.0.mlp", 1), ("head", 5), ("", 7)])
    )
    assert table.to_numpy().tolist() == [["layers.*.mlp", 20, 1, -19], [NO_MODULE, 0, 7, 7]]


def test_a_model_inside_of_adapters_is_the_same_model() -> None:
    wrapped = [("base_model.model.layers.3.q.base_layer", 10), ("base_model.model.layers.3.q.lora_A.default", 2), ("base_model.model", 4)]
    table = module_difference(side([("layers.3.q", 10)]), side(wrapped))
    assert table.to_numpy().tolist() == [[NO_MODULE, 0, 4, 4], ["layers.*.q.lora_A.default", 0, 2, 2]]
    assert alive_difference(side([("layers.3.q", 10)]), side(wrapped)).same_bytes == 10

"""Where a peak moved to and what came to be alive there, from recordings whose every block is written out here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from profiler.analysis.footprint import Footprint, Holder
from profiler.analysis.peak_moves import peak_move
from profiler.analysis.savings import Saving
from profiler.recording import Category, Phase, Role
from tests.builders import Tape


def step(*, activation: int, gradient: int = 500, temporaries: dict[str, int]) -> Footprint:
    """Return a step of two layers: 1,000 B of weights, activations until backward has its gradient, then the optimizer's temporaries."""
    tape = Tape()
    tape.preexisting(1000, roles=Role.PARAMETER, tensor="fc.weight")
    with tape.step(0):
        with tape.phase(Phase.FORWARD):
            saved = [tape.alloc(activation, roles=Role.SAVED, module=f"layers.{layer}.mlp", operator="aten::mm") for layer in (0, 1)]
        with tape.phase(Phase.BACKWARD):
            tape.alloc(gradient, roles=Role.GRADIENT, tensor="fc.weight", module="head", operator="aten::mm")
            for block in saved:
                tape.free(block)
        with tape.phase(Phase.OPTIMIZER):
            for block in [tape.alloc(size, operator=operator) for operator, size in temporaries.items()]:
                tape.free(block)
    return Footprint.of(tape.recording(warmup_steps=0))


BACKWARD = step(activation=400, temporaries={"aten::sqrt": 100})
"""The peak, 1,000 + 2 x 400 + 500 = 2,300 B, is where the gradient is made; the optimizer's is 1,600 B."""
OPTIMIZER = step(activation=50, temporaries={"aten::sqrt": 300})
"""The peak, 1,000 + 500 + 300 = 1,800 B, is in the optimizer's step; that of backward is 1,600 B."""


def move(before: Footprint, after: Footprint) -> str:
    return peak_move(Saving(toggle="checkpointing", before=before, after=after))


def test_what_is_alive_at_the_peak_is_known_by_category_and_by_module_or_operator() -> None:
    weights = Holder(Category.PARAMETER, "fc")
    assert BACKWARD.alive == {weights: 1000, Holder(Category.ACTIVATION, "layers.*.mlp"): 800, Holder(Category.GRADIENT, "fc"): 500}
    assert OPTIMIZER.alive == {weights: 1000, Holder(Category.GRADIENT, "fc"): 500, Holder(Category.OPTIMIZER_TEMPORARY, "aten::sqrt"): 300}
    for run in (BACKWARD, OPTIMIZER):
        assert sum(run.alive.values()) == run.peak_bytes


def test_a_peak_that_moved_to_another_phase_is_told_by_module_and_operator_and_by_what_came_to_be_alive() -> None:
    assert move(BACKWARD, OPTIMIZER) == (
        "The peak moved from backward, at head (aten::mm), to the optimizer step, at aten::sqrt. "
        "Alive there and not at the old peak: 300 B of optimizer temporaries (aten::sqrt)."
    )
    assert move(OPTIMIZER, BACKWARD) == (
        "The peak moved from the optimizer step, at aten::sqrt, to backward, at head (aten::mm). "
        "Alive there and not at the old peak: 800 B of activations (layers.*.mlp)."
    )


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (
            step(activation=50, gradient=600, temporaries={"aten::sqrt": 300}),
            "300 B of optimizer temporaries (aten::sqrt) and 100 B more of gradients (fc).",
        ),
        (
            step(activation=50, temporaries={"aten::a": 200, "aten::b": 400, "aten::c": 300}),
            "400 B of optimizer temporaries (aten::b) and 300 B of optimizer temporaries (aten::c).",
        ),
        (step(activation=50, temporaries={"aten::a": 500, "aten::b": 39}), "500 B of optimizer temporaries (aten::a)."),
        (
            step(activation=50, temporaries={"aten::a": 460, "aten::b": 40}),
            "460 B of optimizer temporaries (aten::a) and 40 B of optimizer temporaries (aten::b).",
        ),
    ],
)
def test_the_two_largest_that_are_two_percent_of_the_new_peak_are_named(after: Footprint, expected: str) -> None:
    assert move(BACKWARD, after).endswith(f" Alive there and not at the old peak: {expected}")


def test_what_a_recording_does_not_tell_is_left_out() -> None:
    unknown = replace(OPTIMIZER, alive={}, peak=OPTIMIZER.peak._replace(operator=None))
    assert move(BACKWARD, unknown) == "The peak moved from backward, at head (aten::mm), to the optimizer step."
    assert move(unknown, BACKWARD) == "The peak moved from the optimizer step to backward, at head (aten::mm)."


def test_a_peak_that_only_lost_bytes_names_nothing_new() -> None:
    fewer = {holder: size for holder, size in OPTIMIZER.alive.items() if holder.category is not Category.OPTIMIZER_TEMPORARY}
    assert move(BACKWARD, replace(OPTIMIZER, alive=fewer)).endswith("to the optimizer step, at aten::sqrt.")

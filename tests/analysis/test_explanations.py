"""What is said of a toggle, from numbers that are written out here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from profiler.analysis.budgets import NO_BUDGETS, Budgets
from profiler.analysis.explanations import explain_saving
from profiler.analysis.footprint import Footprint, Level
from profiler.analysis.savings import Saving
from profiler.recording import Category, Phase, Provenance
from profiler.units import GIB

PARAMETER, ACTIVATION, STATE, TEMPORARY = Category.PARAMETER, Category.ACTIVATION, Category.OPTIMIZER_STATE, Category.OPTIMIZER_TEMPORARY


def run(phases: dict[Phase, dict[Category, float]], notes: tuple[str, ...] = (), host_gib: float = 0) -> Footprint:
    levels = {}
    for phase, categories in phases.items():
        sizes = {category: int(gib * GIB) for category, gib in categories.items()}
        levels[phase] = Level(phase, sum(sizes.values()), sizes)
    peak = max(levels.values(), key=lambda level: level.num_bytes)
    return Footprint(
        recording_id=None,
        provenance=Provenance.SIMULATED,
        peak=peak,
        peak_step=1,
        phases=levels,
        notes=notes,
        host_bytes=int(host_gib * GIB),
    )


BASELINE = run(
    {
        Phase.FORWARD: {PARAMETER: 4, STATE: 2, ACTIVATION: 6},
        Phase.OPTIMIZER: {PARAMETER: 4, STATE: 2, TEMPORARY: 3},
    }
)


def said(after: Footprint, before: Footprint = BASELINE, budgets: Budgets = NO_BUDGETS) -> str:
    return " ".join(explain_saving(Saving(toggle="checkpointing", before=before, after=after), budgets))


def test_a_peak_that_moved_is_followed() -> None:
    text = said(run({Phase.FORWARD: {PARAMETER: 4, STATE: 2, ACTIVATION: 1}, Phase.OPTIMIZER: {PARAMETER: 4, STATE: 2, TEMPORARY: 3}}))
    assert "checkpointing saved 3.00 GiB, 25 % of the peak: 12.0 GiB became 9.00 GiB." in text
    assert "activations fell by 6.00 GiB, while optimizer temporaries rose by 3.00 GiB" in text
    assert "The peak moved from forward to the optimizer step." in text
    assert "What limits now: parameters (44 %), optimizer temporaries (33 %) and optimizer state (22 %)." in text
    assert "This cannot help further until the optimizer step needs less: forward is 2.00 GiB below the peak now." in text


def at(phase: Phase, *, gib: int, module: str | None = None, operator: str | None = None) -> Footprint:
    """Return a run with a forward pass that is never the peak, so that it names a phase."""
    found = run({Phase.FORWARD: {PARAMETER: 1}, phase: {PARAMETER: 1, ACTIVATION: gib}})
    return replace(found, peak=found.peak._replace(module=module, operator=operator))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("lm_head", "aten::mm"), ("lm_head", "aten::mm"), "still in backward, at lm_head (aten::mm)."),
        (
            ("model.layers.31.mlp", "aten::mm"),
            ("lm_head", "aten::mm"),
            "still in backward, but moved from model.layers.31.mlp (aten::mm) to lm_head (aten::mm).",
        ),
        (
            ("model.layers.31.mlp", "aten::mm"),
            ("model.layers.0.mlp", "aten::mm"),
            "still in backward, but moved from layer 31 to layer 0 (model.layers.*.mlp).",
        ),
        (("h.1.experts.2", None), ("h.1.experts.3", None), "still in backward, but moved from h.1.experts.2 to h.1.experts.3."),
        (("lm_head", "aten::mm"), ("lm_head", "aten::add"), "still in backward, but moved from lm_head (aten::mm) to lm_head (aten::add)."),
        (("lm_head", None), ("base_model.model.lm_head.base_layer", None), "still in backward, at lm_head."),
        (("lm_head", "aten::mm"), (None, None), "still in backward."),
        (("lm_head", None), (None, "aten::mm"), "still in backward."),
        ((None, None), (None, None), "still in backward."),
    ],
)
def test_a_peak_that_stays_in_its_phase_is_followed_as_far_as_both_recordings_tell(
    before: tuple[str | None, str | None], after: tuple[str | None, str | None], expected: str
) -> None:
    old = at(Phase.BACKWARD, gib=6, module=before[0], operator=before[1])
    new = at(Phase.BACKWARD, gib=3, module=after[0], operator=after[1])
    assert f"The peak is {expected}" in said(new, old)


def test_a_peak_outside_the_named_phases_is_told_by_what_is_known() -> None:
    outside = at(Phase.OTHER, gib=6)
    assert "The peak moved from outside the named phases to backward." in said(at(Phase.BACKWARD, gib=3), outside)
    assert "The peak moved from aten::copy_ to backward." in said(at(Phase.BACKWARD, gib=3), at(Phase.OTHER, gib=6, operator="aten::copy_"))
    assert "The peak is still outside the named phases." in said(at(Phase.OTHER, gib=3), outside)
    moved = said(at(Phase.OTHER, gib=3, module="b"), at(Phase.OTHER, gib=6, module="a"))
    assert "The peak is still outside the named phases, but moved from a to b." in moved


def test_a_run_that_names_no_phases_does_not_tell_whether_the_peak_moved() -> None:
    unnamed = run({Phase.OTHER: {PARAMETER: 1, ACTIVATION: 6}})
    expected = "Whether the peak moved is not known: the run without checkpointing names no phases."
    assert expected in said(at(Phase.BACKWARD, gib=3), unnamed)


def test_where_little_is_left_of_what_fell_more_of_it_cannot_help() -> None:
    text = said(
        run({Phase.FORWARD: {PARAMETER: 4, STATE: 2, ACTIVATION: 0.25}}), run({Phase.FORWARD: {PARAMETER: 4, STATE: 2, ACTIVATION: 6}})
    )
    assert "The peak is still in forward." in text
    assert "More of it cannot help much: 256 MiB of activations are left at the peak." in text


def test_a_toggle_that_works_where_the_peak_is_not_says_so() -> None:
    text = said(run({Phase.FORWARD: {PARAMETER: 4, STATE: 2, ACTIVATION: 6}, Phase.OPTIMIZER: {PARAMETER: 4, STATE: 2}}))
    assert "saved nothing at the peak" in text
    assert "lowered the most that the optimizer step needs from 9.00 GiB to 6.00 GiB" in text
    assert "but the peak, 12.0 GiB, is in forward: there are 6.00 GiB of activations, 4.00 GiB of parameters and 2.00 GiB" in text


def test_a_toggle_that_changes_nothing_says_why() -> None:
    phases = {phase: {category: size / GIB for category, size in level.categories.items()} for phase, level in BASELINE.phases.items()}
    text = said(run(phases, notes=("0 layers changed: there is no linear layer.",)))
    assert text.endswith("No phase of the step needs more or less than before. 0 layers changed: there is no linear layer.")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("softmax bmm", "flash bmm", "before: the same bytes, but by other operators, flash instead of softmax."),
        ("bmm", "bmm e d c b a", "before: the same bytes, but now also by a, b, c and 2 more."),
        ("bmm mm", "mm", "before: the same bytes, but no longer by bmm."),
        ("mm", "mm", "before: the operators that allocate are the same."),
        ("mm", "", "needs more or less than before."),
    ],
)
def test_the_same_bytes_by_other_operators_are_told(before: str, after: str, expected: str) -> None:
    old, new = (replace(BASELINE, operators=frozenset(names.split())) for names in (before, after))
    assert said(new, old).endswith(expected)


def test_the_time_of_a_toggle_that_saved_nothing_is_told_where_it_was_estimated() -> None:
    before = replace(BASELINE, estimated_step_seconds=0.00275)
    assert said(replace(BASELINE, estimated_step_seconds=0.00268), before).endswith("of a step goes from 2.75 ms to 2.68 ms.")
    assert said(before, before).endswith("The estimated time of a step stays 2.75 ms.")
    assert "time" not in said(BASELINE, before)


def test_what_a_toggle_does_to_the_loss_is_told_where_it_was_measured() -> None:
    before = replace(BASELINE, losses=(3.0, 2.5), repeated_losses=(3.0, 2.501))
    saved = run({Phase.FORWARD: {PARAMETER: 4, STATE: 2, ACTIVATION: 1}})

    assert "loss" not in said(saved, before)
    assert said(replace(saved, losses=(2.5005,)), before).endswith("The loss is the same, as far as reruns tell.")
    assert said(replace(saved, losses=(2.75,)), before).endswith("The loss of the last step is 0.25 higher, more than reruns differ.")
    assert "is 0.25 lower" in said(replace(saved, losses=(2.25,)), before)


def test_a_toggle_that_is_on_already_says_so() -> None:
    same = replace(BASELINE, recording_id="0123")
    assert said(same, same) == "checkpointing changed nothing: the run without it is set so already."


def test_a_toggle_that_costs_memory_says_what_it_costs() -> None:
    text = said(run({Phase.FORWARD: {PARAMETER: 4, STATE: 2, ACTIVATION: 9}}))
    assert "checkpointing cost 3.00 GiB, 25 % of the peak" in text
    assert "cannot help" not in text


def test_what_moved_to_the_host_is_named() -> None:
    assert "The host holds 5.00 GiB more for it." in said(run({Phase.FORWARD: {PARAMETER: 4, STATE: 2, ACTIVATION: 1}}, host_gib=5))


def gib(device: int | None = None, host: int | None = None) -> Budgets:
    return Budgets(device_bytes=None if device is None else device * GIB, host_bytes=None if host is None else host * GIB)


MOVED = run({Phase.FORWARD: {PARAMETER: 4, STATE: 2, ACTIVATION: 1}}, host_gib=5)
"""7 GiB on the GPU and 5 on the host, where the baseline has 12 and none."""
HOST_LIMITS = "What limits now: the host."
UNDER = "The run is now under the budget: 7.00 GiB are allocated, 1.00 GiB less than 8.00 GiB."
HOST_OVER = "The run is now over the host budget: 5.00 GiB are held, 1.00 GiB more than 4.00 GiB."


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        (gib(device=8, host=4), f"{UNDER} {HOST_OVER} {HOST_LIMITS}"),
        (gib(device=8, host=5), UNDER),
        (gib(device=12, host=4), f"{HOST_OVER} {HOST_LIMITS}"),
        (gib(device=6), "The run is still over the budget: 7.00 GiB are allocated, 1.00 GiB more than 6.00 GiB."),
        (gib(device=13, host=64), ""),
        (gib(), ""),
    ],
)
def test_each_budget_that_is_or_was_exceeded_is_told(budgets: Budgets, expected: str) -> None:
    text = said(MOVED, budgets=budgets)
    assert text.endswith(f"The host holds 5.00 GiB more for it. {expected}".strip())
    assert text.count("budget") == expected.count("budget")


def test_what_limits_now_is_the_host_where_it_alone_is_over_its_budget() -> None:
    at_the_peak = "What limits now: parameters (57 %), optimizer state (29 %) and activations (14 %)."
    for budgets in (gib(device=8, host=4), gib(host=4)):
        assert said(MOVED, budgets=budgets).endswith(HOST_LIMITS)
        assert at_the_peak not in said(MOVED, budgets=budgets)
    for budgets in (gib(), gib(device=8, host=5), gib(device=6, host=4)):
        assert at_the_peak in said(MOVED, budgets=budgets)
        assert HOST_LIMITS not in said(MOVED, budgets=budgets)


def test_a_toggle_that_saved_nothing_and_fills_the_host_says_so() -> None:
    text = said(replace(BASELINE, host_bytes=5 * GIB), budgets=gib(host=4))
    assert "checkpointing saved nothing at the peak." in text
    assert text.endswith(f"The host holds 5.00 GiB more for it. {HOST_OVER} {HOST_LIMITS}")


def test_a_host_that_is_the_limit_leaves_no_advice_about_the_peak() -> None:
    optimizer = run({Phase.FORWARD: {PARAMETER: 4}, Phase.OPTIMIZER: {PARAMETER: 4, STATE: 2, TEMPORARY: 3}}, host_gib=5)
    assert "This cannot help further until" in said(optimizer)
    assert "cannot help" not in said(optimizer, budgets=gib(host=4))

"""What is said of a toggle, from numbers that are written out here."""

from __future__ import annotations

from dataclasses import replace

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


def said(after: Footprint, before: Footprint = BASELINE) -> str:
    return " ".join(explain_saving(Saving(toggle="checkpointing", before=before, after=after)))


def test_a_peak_that_moved_is_followed() -> None:
    text = said(run({Phase.FORWARD: {PARAMETER: 4, STATE: 2, ACTIVATION: 1}, Phase.OPTIMIZER: {PARAMETER: 4, STATE: 2, TEMPORARY: 3}}))
    assert "checkpointing saved 3.00 GiB, 25 % of the peak: 12.0 GiB became 9.00 GiB." in text
    assert "activations fell by 6.00 GiB, while optimizer temporaries rose by 3.00 GiB" in text
    assert "The peak moved from forward to the optimizer step." in text
    assert "What limits now: parameters (44 %), optimizer temporaries (33 %) and optimizer state (22 %)." in text
    assert "This cannot help further until the optimizer step needs less: forward is 2.00 GiB below the peak now." in text


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

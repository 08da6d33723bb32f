"""What a comparison found: four numbers, the peaks by category, and what each toggle saved in its order, with the reasons in words."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from pages.shared import components, session
from profiler.analysis.budgets import Tier, Verdict
from profiler.analysis.footprint import Footprint
from profiler.figures.axes import is_drawn
from profiler.figures.comparison import comparison_figure, loss, step_time
from profiler.figures.waterfall import waterfall_figure, waterfall_table
from profiler.planner.comparison import BASELINE, Compared, Switched, name_of
from profiler.recording import Provenance
from profiler.units import exact_bytes, format_bytes

TOGETHER = "All together"
Named = dict[str, Footprint]


def metrics(compared: Compared) -> None:
    """Draw the baseline's peak, the best that was found, whether it is under each budget, and what a step takes."""
    baseline = compared.footprints.get(())
    if baseline is None:
        return
    name, best = _shown(compared)
    saved = baseline.peak_bytes - best.peak_bytes
    percent = f"{100 * abs(saved) / max(baseline.peak_bytes, 1):.0f} %"
    share = f"{format_bytes(abs(saved))} {'saved' if saved >= 0 else 'more'}, {percent} of {format_bytes(baseline.peak_bytes)}"
    label = name if compared.comparison.together else f"Smallest: {name}"
    note = f"peak in {best.peak.phase}" if best is baseline else share
    full = f"{exact_bytes(best.peak_bytes)} with {name}, {best.provenance}; the baseline's are {exact_bytes(baseline.peak_bytes)}."
    row = [
        components.Metric(label, format_bytes(best.peak_bytes), full, note),
        *(_held_against(verdict) for verdict in compared.budgets.verdicts(best)),
        *_host(best, baseline),
        components.Metric("Step time", _short(step_time(best)), _TIME_HELP[best.provenance], _time_note(best, baseline)),
        components.Metric("Loss", loss(best), _loss_help(best), f"baseline {loss(baseline)}"),
    ]
    components.metrics(row)


def main_chart(compared: Compared) -> None:
    """Draw the peaks by category: step by step, each alone, or all but one."""
    views = {name: runs for name, make in _VIEWS.items() if len(runs := make(compared)) > 1}
    if not views:
        views = {"Baseline": _every(compared)}
    shown = str(st.segmented_control("Runs", list(views), required=True, **session.linked("runs", list(views))))
    title, budget_bytes = f"Allocated at the peak, {_how(compared)}", compared.budgets.device_bytes
    figure = comparison_figure(views[shown], theme=session.theme(), title=title, budget_bytes=budget_bytes)
    components.chart(figure, key="compare_bars", alt="The peak of each run by category; Table has the numbers.")
    highest = max(run.peak_bytes for run in views[shown].values())
    if budget_bytes is not None and not is_drawn(budget_bytes, highest):
        st.caption(f"The budget, {format_bytes(budget_bytes)}, lies far to the right of these bars.")


def waterfall(compared: Compared) -> None:
    """Draw what each toggle saved, the sum, and the sentences that say why."""
    if not compared.savings:
        return
    together = compared.comparison.together
    st.subheader("What each toggle saves" + (", in this order" if together else ", alone"), anchor=False)
    if together:
        num_steps, num_toggles = len(compared.savings), len(compared.comparison.toggles)
        last = TOGETHER if num_steps == num_toggles else f"with {num_steps} of {num_toggles}, the others are on their way"
        figure = waterfall_figure(compared.savings, last=last, theme=session.theme(), budget_bytes=compared.budgets.device_bytes)
        components.chart(figure, key="compare_waterfall", alt="What each toggle saves in order; the table has the numbers.")
        total = compared.savings[0].before.peak_bytes - compared.savings[-1].after.peak_bytes
        order = ", ".join(saving.toggle for saving in compared.savings)
        st.caption(f"The steps add up to {exact_bytes(total)}, {_how(compared)}. In another order than {order} each has another share.")
    for toggle, sentences in compared.explanations().items():
        st.markdown(_sentences(toggle, sentences))
    with st.expander("The steps as a table"):
        components.table(waterfall_table(compared.savings), key="waterfall", alt="What each toggle saved, in order", height="content")


def named_runs(compared: Compared) -> Named:
    """Return every run that is here under its name, in the order of the comparison."""
    return {name_of(switched): compared.footprints[switched] for switched in compared.comparison.jobs() if switched in compared.footprints}


def _shown(compared: Compared) -> tuple[str, Footprint]:
    """Return the run that the numbers at the head are about: all together, or of runs alone the smallest."""
    toggles = compared.comparison.toggles
    if compared.comparison.together and toggles in compared.footprints:
        return _name(compared, toggles), compared.footprints[toggles]
    switched = min(compared.footprints, key=lambda one: compared.footprints[one].peak_bytes)
    return name_of(switched), compared.footprints[switched]


def _sentences(toggle: str, sentences: list[str]) -> str:
    """Return what is said of a toggle as one item of a list, its name in bold; names may hold characters that Markdown reads."""
    said = " ".join(sentences).removeprefix(toggle)
    return f"- **{toggle.replace('*', chr(92) + '*')}**{said}"


def _name(compared: Compared, switched: Switched) -> str:
    is_all = compared.comparison.together and switched == compared.comparison.toggles and len(switched) > 1
    return TOGETHER if is_all else name_of(switched)


def _held_against(verdict: Verdict) -> components.Metric:
    """Return whether a run is under the budget of one memory."""
    on_host = verdict.tier is Tier.HOST
    label = f"{'Host under' if on_host else 'Under'} {format_bytes(verdict.budget_bytes)}"
    besides = "All else that the host runs comes on top." if on_host else "The CUDA context and other processes come on top."
    text = f"{exact_bytes(verdict.needed_bytes)} {verdict.kind} at most, against {exact_bytes(verdict.budget_bytes)}. {besides}"
    return components.Metric(label, "Yes" if verdict.fits else "No", text, verdict.phrase)


def _host(best: Footprint, baseline: Footprint) -> list[components.Metric]:
    """Return the second tier, where the toggles change what waits there."""
    if best.moved_to_host_bytes == baseline.moved_to_host_bytes:
        return []
    help_text = f"{exact_bytes(best.host_bytes)} at most, pinned or not, beside what is on the GPU."
    return [components.Metric("On the host", format_bytes(best.host_bytes), help_text, f"baseline {format_bytes(baseline.host_bytes)}")]


_TIME_HELP = {
    Provenance.MEASURED: "Processor time of this machine for a step, median and range. A GPU ranks optimizations otherwise.",
    Provenance.SIMULATED: "Estimated by a roofline for a GPU; nothing was timed. For this machine's CPU there is no estimate.",
}


def _time_note(best: Footprint, baseline: Footprint) -> str:
    kind = "measured, " if best.cpu_seconds else "estimated, " if best.estimated_step_seconds else ""
    return f"{kind}baseline {_short(step_time(baseline))}"


def _short(text: str) -> str:
    return text.partition(" (")[0].removesuffix(", estimated")


def _loss_help(run: Footprint) -> str:
    if run.loss is None:
        return "A simulation computes no numbers. Measure to see what a toggle does to the loss."
    return f"After {len(run.losses)} steps on the same batches. Run again, equal steps differed by {run.loss_tolerance:.1e} at most."


def _how(compared: Compared) -> str:
    return ", ".join(sorted({str(run.provenance) for run in compared.footprints.values()}))


def _in_order(compared: Compared) -> Named:
    names: dict[Switched, str] = {(): BASELINE}
    for prefix in compared.comparison.steps:  # "+ NAME" is said of a run only where the one before it is above it
        names[prefix] = f"+ {prefix[-1]}" if prefix[:-1] in compared.footprints else _name(compared, prefix)
    return _present(compared, names)


def _alone(compared: Compared) -> Named:
    return _present(compared, {(): BASELINE} | {(toggle,): str(toggle) for toggle in compared.comparison.toggles})


def _all_but_one(compared: Compared) -> Named:
    comparison = compared.comparison
    if not comparison.together or len(comparison.toggles) < 2:
        return {}
    return _present(compared, {comparison.toggles: TOGETHER} | {comparison.without(one): f"without {one}" for one in comparison.toggles})


def _every(compared: Compared) -> Named:
    return named_runs(compared)


def _present(compared: Compared, names: dict[Switched, str]) -> Named:
    return {name: compared.footprints[switched] for switched, name in names.items() if switched in compared.footprints}


_VIEWS: dict[str, Callable[[Compared], Named]] = {"In order": _in_order, "Each alone": _alone, "All but one": _all_but_one}

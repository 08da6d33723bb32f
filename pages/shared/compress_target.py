"""The guided run: state a target, see the candidates, measure them, adjust, and end with what was tried and the best that meets it."""

from __future__ import annotations

from functools import partial

import streamlit as st

from pages.shared import components, compress_choice, compress_results, compress_runs, session
from profiler.compression.adjust import neighbours
from profiler.compression.result import Result
from profiler.compression.target import STEPS, Candidate, Goal, Target, best, candidates, loss_gain
from profiler.compression.target_text import Baseline
from profiler.errors import SpecError
from profiler.figures.experiments import GOALS, candidates_table, tried_table
from profiler.units import format_bytes

_SHOWN = 5
_KNOWN = "The last column says from where, and of which model, a loss and a time are."
_DEFAULT_RATIO, _DEFAULT_GAIN = "0.3", "0.05"


def draw(model: str) -> None:
    """Draw the five steps for a model.

    Raises:
        SpecError: the target is not possible.
    """
    st.markdown(f"**1. {STEPS[0]}**")
    found = compress_runs.results(model)
    target = _target(model, found)
    ranked = candidates(model, target, found)
    st.markdown(f"**2. {STEPS[1]}**")
    _candidates(ranked)
    st.markdown(f"**3. {STEPS[2]}**")
    _apply(ranked)
    st.markdown(f"**4. {STEPS[3]}**")
    _adjust(target, found)
    st.markdown(f"**5. {STEPS[4]}**")
    _keep(target, found)


def _target(model: str, found: list[Result]) -> Target:
    goals = list(GOALS)
    goal_place, ratio_place, gain_place, time_place = st.columns([2, 1, 1, 1], vertical_alignment="bottom")
    with goal_place:
        goal = st.segmented_control(
            "What is to be small", goals, format_func=GOALS.__getitem__, required=True, **session.linked("goal", goals)
        )
    with ratio_place:
        ratio = st.text_input(
            "Bytes",
            placeholder=_DEFAULT_RATIO,
            help="At most: a share such as 0.3, or a size such as 2 MiB.",
            **session.linked_text("ratio", 16),
        )
    with gain_place:
        gain = st.text_input("Loss given up", placeholder=_DEFAULT_GAIN, help="Nats, at most.", **session.linked_text("gain", 10))
    with time_place:
        time = st.text_input(
            "Time", placeholder="any", help="Of a forward pass, at most: a share such as 0.5, or 50 ms.", **session.linked_text("time", 16)
        )
    chosen = Goal(goal or goals[0])
    baseline = Baseline.of(model, chosen, found)
    return Target(
        goal=chosen,
        ratio=baseline.bytes_share(ratio or _DEFAULT_RATIO),
        loss_gain=_number("Loss given up", gain or _DEFAULT_GAIN),
        time_ratio=baseline.time_share(time) if time else None,
    )


def _number(label: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SpecError(f"{label}: {text[:40]!r} is not a number. Write one such as 0.3.") from None


def _candidates(ranked: list[Candidate]) -> None:
    num_meeting = sum(one.meets for one in ranked)
    st.caption(f"{num_meeting} of {len(ranked)} meet the target as far as is known. {_KNOWN}")
    components.table(candidates_table(ranked), key="compress_candidates", alt="Candidates, those that meet the target first")


def _apply(ranked: list[Candidate]) -> None:
    unmeasured = [one for one in ranked if not one.measured]
    for text in dict.fromkeys(text for one in unmeasured if one.meets and (text := compress_runs.missing(one.experiment))):
        st.caption(text)
    waiting = [one for one in unmeasured if compress_runs.missing(one.experiment) is None]
    meeting = [one for one in waiting if one.meets]
    if not meeting:
        st.caption("No other candidate is expected to meet the target; the first is the nearest. Adjust it, or the target.")
    with st.container(horizontal=True, gap="small"):
        for num, kind in ((1, "primary"), (_SHOWN, "secondary")):
            chosen = [one.experiment for one in (meeting or waiting)[:num]]
            label = f"Measure {chosen[0].technique}" if num == 1 and chosen else f"Measure the first {len(chosen)}"
            if len(chosen) > 1 or (num == 1 and chosen):
                take = partial(compress_runs.start, chosen)
                st.button(label, on_click=take, key=f"target_measure_{num}", type=kind, disabled=compress_runs.busy())  # type: ignore[arg-type]


def _adjust(target: Target, found: list[Result]) -> None:
    """Draw what lies beside the result that is nearest to the target, and the way to change it by hand."""
    if not found:
        st.caption("After the first measurement: what lies beside it, more or less of each technique, is offered here.")
        return
    nearest = min(found, key=partial(_distance, target))
    tried = {result.experiment.stages for result in found}
    untried = [one for one in neighbours(nearest.experiment, target.goal) if one.stages not in tried and compress_runs.missing(one) is None]
    missed = "; ".join(target.missed_by(nearest))
    st.markdown(f"{compress_results.title(nearest)} is nearest: {f'it misses {missed}' if missed else 'it meets the target'}. Beside it:")
    with st.container(horizontal=True, gap="small"):
        for number, one in enumerate(untried[:_SHOWN]):
            measure = partial(compress_runs.start, [one])
            st.button(f"Measure {one.technique}", on_click=measure, disabled=compress_runs.busy(), key=f"target_adjust_{number}")
        take = partial(compress_choice.choose, nearest.experiment.stages)
        st.button("Change it by hand", on_click=take, type="tertiary", key="target_by_hand")


def _distance(target: Target, result: Result) -> tuple[int, float, float]:
    """Return how far a result is from the target: what it misses, the bytes that are too many, and what it costs."""
    return len(target.missed_by(result)), max(result.ratio(target.goal.value), target.ratio), loss_gain(result)


def _keep(target: Target, found: list[Result]) -> None:
    winner = best(target, found)
    if winner is None:
        st.info("Nothing that was measured meets the target yet." if found else "Nothing was measured on this model yet.")
    else:
        size = getattr(winner.size, target.goal.value)
        st.success(
            f"{compress_results.title(winner)} meets it: {format_bytes(size)}, {winner.ratio(target.goal.value):.3f} of the untouched"
            f" model, loss {loss_gain(winner):+.4f}."
        )
    if found:
        components.table(tried_table(found, target), key="compress_tried", alt="What was tried, and what of the target it misses")

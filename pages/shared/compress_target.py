"""The guided run: state a target, see the candidates, measure them, adjust, and end with what was tried and the best that meets it."""

from __future__ import annotations

from functools import partial

import streamlit as st

from pages.shared import components, compress_choice, compress_results, compress_runs, session
from profiler.compression.base import to_install
from profiler.compression.result import Result
from profiler.compression.target import STEPS, Candidate, Goal, Target, best, candidates, loss_gain
from profiler.errors import SpecError
from profiler.figures.experiments import GOALS, candidates_table, tried_table
from profiler.units import format_bytes

_SHOWN = 5
_DEFAULT_RATIO, _DEFAULT_GAIN = "0.3", "0.05"


def draw(model: str) -> None:
    """Draw the five steps for a model.

    Raises:
        SpecError: the target is not possible.
    """
    st.markdown(f"**1. {STEPS[0]}**")
    target = _target()
    found = compress_runs.results(model)
    ranked = candidates(model, target, found)
    st.markdown(f"**2. {STEPS[1]}**")
    _candidates(ranked)
    st.markdown(f"**3. {STEPS[2]}**")
    _apply(ranked)
    st.markdown(f"**4. {STEPS[3]}**")
    _adjust(target, found)
    st.markdown(f"**5. {STEPS[4]}**")
    _keep(target, found)


def _target() -> Target:
    goals = list(GOALS)
    goal_place, ratio_place, gain_place, time_place = st.columns([2, 1, 1, 1], vertical_alignment="bottom")
    with goal_place:
        goal = st.segmented_control(
            "What is to be small", goals, format_func=GOALS.__getitem__, required=True, **session.linked("goal", goals)
        )
    with ratio_place:
        ratio = st.text_input("Share of the bytes", placeholder=_DEFAULT_RATIO, help="At most so much.", **session.linked_text("ratio", 10))
    with gain_place:
        gain = st.text_input("Loss given up", placeholder=_DEFAULT_GAIN, help="Nats, at most.", **session.linked_text("gain", 10))
    with time_place:
        time = st.text_input("Share of the time", placeholder="any", help="Of a forward pass, at most.", **session.linked_text("time", 10))
    return Target(
        goal=Goal(goal or goals[0]),
        ratio=_number("Share of the bytes", ratio or _DEFAULT_RATIO),
        loss_gain=_number("Loss given up", gain or _DEFAULT_GAIN),
        time_ratio=_number("Share of the time", time) if time else None,
    )


def _number(label: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SpecError(f"{label}: {text[:40]!r} is not a number. Write one such as 0.3.") from None


def _candidates(ranked: list[Candidate]) -> None:
    num_meeting = sum(one.meets for one in ranked)
    st.caption(f"{num_meeting} of {len(ranked)} meet the target as far as is known. Expectations are formulas and published trials.")
    components.table(candidates_table(ranked), key="compress_candidates", alt="Candidates, those that meet the target first")


def _apply(ranked: list[Candidate]) -> None:
    waiting = [one for one in ranked if not one.measured and one.meets and _missing(one) is None]
    left_out = dict.fromkeys(text for one in ranked if one.meets and not one.measured and (text := _missing(one)))
    for text in left_out:
        st.caption(text)
    if not waiting:
        st.caption("Every candidate that is expected to meet the target was measured. Adjust it, or the target.")
        return
    with st.container(horizontal=True, gap="small"):
        for num in (1, _SHOWN):
            chosen = [one.experiment for one in waiting[:num]]
            label = f"Measure {chosen[0].technique}" if num == 1 else f"Measure the first {len(chosen)}"
            if num == 1 or len(chosen) > 1:
                st.button(
                    label,
                    on_click=partial(compress_runs.start, chosen),
                    key=f"target_measure_{num}",
                    type="primary" if num == 1 else "secondary",
                )


def _missing(candidate: Candidate) -> str | None:
    return to_install(dict.fromkeys(name for item in candidate.experiment.techniques for name in item.needs))


def _adjust(target: Target, found: list[Result]) -> None:
    if not found:
        st.caption(
            "After the first measurement: open a result as a pipeline, change its amounts, its order or its parts, and measure again."
        )
        return
    ordered = sorted(found, key=lambda result: (len(target.missed_by(result)), loss_gain(result), result.ratio(target.goal.value)))
    with st.container(horizontal=True, gap="small"):
        for number, result in enumerate(ordered[:3]):
            take = partial(compress_choice.choose, result.experiment.stages)
            st.button(f"Adjust {result.experiment.technique}", on_click=take, key=f"target_adjust_{number}", type="tertiary")


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

"""Claims found in articles, a card each: the claim, its formula, the arithmetic put right, and the verdict of a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import streamlit as st

from pages.shared import compress_choice, compress_runs
from profiler.compression.experiment import Experiment
from profiler.compression.promises import PROMISES, Promise, Verdict
from profiler.compression.result import Result

_COLORS: Mapping[Verdict, str] = {
    Verdict.HOLDS: "green",
    Verdict.PARTLY: "orange",
    Verdict.FAILS: "red",
    Verdict.NOT_MEASURED: "gray",
    Verdict.NOT_HERE: "gray",
}


def draw(model: str) -> None:
    """Draw the cards, judged by what was measured on a model, and the button that measures what is missing."""
    found = {result.experiment.stages: result for result in reversed(compress_runs.results(model))}
    cards = [(promise, Experiment.of(model, promise.stages) if promise.judge else None) for promise in PROMISES]
    missing = [one for _, one in cards if one and one.stages not in found and not compress_runs.missing(one)]
    if missing:
        compress_runs.offer(missing, label="Measure all promises", key="compress_promises")
    grid = st.grid(2, min_column_width=340, border=True, key="promises")
    for promise, experiment in cards:
        with grid.cell():
            _card(promise, experiment, found.get(experiment.stages) if experiment else None)


def _card(promise: Promise, experiment: Experiment | None, result: Result | None) -> None:
    finding = promise.finding(result)
    st.badge(finding.verdict.value.capitalize(), color=_COLORS[finding.verdict])  # type: ignore[arg-type]
    st.markdown(f"**{promise.claim}**")
    st.caption(f"Behind it: {promise.formula}".replace("*", r"\*"))
    st.markdown(promise.corrected)
    st.markdown(f"Measured: {finding.sentence}" if result else finding.sentence)
    if experiment is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if missing := compress_runs.missing(experiment):
            st.caption(missing)
        elif result is None:
            st.button(
                "Measure", on_click=partial(compress_runs.start, [experiment]), disabled=compress_runs.busy(), key=f"promise_{promise.name}"
            )
        see = partial(compress_choice.choose, experiment.stages)
        st.button("Open in the pipeline", on_click=see, type="tertiary", key=f"promise_see_{promise.name}")

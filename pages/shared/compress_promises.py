"""Claims found in articles, a card each: the claim, its formula, the arithmetic put right, and the verdict of a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import streamlit as st

from pages.shared import compress_choice, compress_runs, session
from profiler.compression.experiment import Experiment
from profiler.compression.promises import PROMISES, Evidence, Promise, Verdict
from profiler.compression.result import Result
from profiler.compression.training_facts import TrainingFacts
from profiler.jobs.facts import training_asked
from profiler.jobs.lab_runs import Asked
from profiler.spec import Toggle

Question = Experiment | Asked[TrainingFacts]

_COLORS: Mapping[Verdict, str] = {
    Verdict.HOLDS: "green",
    Verdict.PARTLY: "orange",
    Verdict.FAILS: "red",
    Verdict.NOT_MEASURED: "gray",
}


def draw(model: str) -> None:
    """Draw the cards, judged by what was measured on a model, and the button that measures what is missing."""
    results = compress_runs.results(model)
    training = training_asked(model, session.store().home)
    facts = training.find()
    cards = [(promise, _asked(promise, model, training)) for promise in PROMISES]
    known = {result.experiment.stages for result in results}
    wanted: list[Question] = []
    for _, asked in cards:
        wanted += [one for one in asked if one not in wanted and not _is_known(one, known, facts) and not _missing([one])]
    if wanted:
        compress_runs.offer(wanted, label="Measure all promises", key="compress_promises")
    grid = st.grid(2, min_column_width=340, border=True, key="promises")
    for promise, asked in cards:
        with grid.cell():
            _card(promise, asked, _evidence(promise, model, results, facts))


def _asked(promise: Promise, model: str, training: Asked[TrainingFacts]) -> list[Question]:
    """Return what has to be measured for a promise."""
    if promise.is_of_training:
        return [training]
    return [Experiment.of(model, stages) for stages in (promise.stages, promise.beside) if stages]


def _is_known(one: Question, known: set[tuple[Toggle, ...]], facts: TrainingFacts | None) -> bool:
    return one.stages in known if isinstance(one, Experiment) else facts is not None


def _missing(asked: Sequence[Question]) -> str | None:
    return next((said for one in asked if isinstance(one, Experiment) and (said := compress_runs.missing(one))), None)


def _evidence(promise: Promise, model: str, results: Sequence[Result], facts: TrainingFacts | None) -> Evidence:
    """Return what was measured for a promise, the first seed first."""

    def of(stages: tuple[str, ...]) -> list[Result]:
        wanted = Experiment.of(model, stages).stages if stages else None
        return sorted((one for one in results if one.experiment.stages == wanted), key=lambda one: one.experiment.seed)

    return Evidence(results=of(promise.stages), beside=of(promise.beside), training=facts)


def _card(promise: Promise, asked: list[Question], evidence: Evidence) -> None:
    finding = promise.finding(evidence)
    is_measured = finding.verdict is not Verdict.NOT_MEASURED
    st.badge(finding.verdict.value.capitalize(), color=_COLORS[finding.verdict])  # type: ignore[arg-type]
    st.markdown(f"**{promise.claim}**")
    st.caption(f"Behind it: {promise.formula}".replace("*", r"\*"))
    st.markdown(promise.corrected)
    st.markdown(f"Measured: {finding.sentence}" if is_measured else finding.sentence)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if missing := _missing(asked):
            st.caption(missing)
        elif not is_measured:
            st.button("Measure", on_click=partial(compress_runs.start, asked), disabled=compress_runs.busy(), key=f"promise_{promise.name}")
        if isinstance(asked[0], Experiment):
            see = partial(compress_choice.choose, asked[0].stages)
            st.button("Open in the pipeline", on_click=see, type="tertiary", key=f"promise_see_{promise.name}")

"""What is done to which model: a model of the lab, and techniques in an order that the user chooses. The address carries both."""

from __future__ import annotations

from functools import partial

import pandas as pd
import streamlit as st

from pages.shared import components, compress_results, compress_runs, links, session, toggle_list
from profiler.compression import lab
from profiler.compression.base import Saves, Technique, to_install
from profiler.compression.experiment import MAX_SEED, MAX_STAGES, Experiment
from profiler.compression.registry import PIPELINES, TECHNIQUES, technique
from profiler.errors import SpecError
from profiler.spec import Toggle

EXAMPLE = (Toggle("prune-global", (("amount", "0.5"),)), Toggle("packed-int"))
"""A pipeline that takes seconds and gives much."""
_ADD = "compress_add"
_SAVES = {
    Saves.MEMORY: "memory and disk",
    Saves.DISK: "disk only",
    Saves.NOTHING: "nothing by itself",
}


def model() -> str:
    """Draw the choice of the model and return its name."""
    names = list(lab.MODELS) or ["lab"]
    place, about = st.columns([2, 3], vertical_alignment="bottom")
    with place:
        name = str(st.selectbox("Model", names, format_func=_model_label, **session.linked("model", names)))
    with about:
        found = lab.MODELS.get(name)
        st.caption(found.explanation if found else "The lab's models are not in this installation: what was measured is shown.")
        if found and (missing := to_install(found.needs)):
            st.caption(missing)
    return name


def draw(model_name: str) -> None:
    """Draw the pipeline, the button that measures it, and what it gave.

    Raises:
        SpecError: the techniques cannot be in this order.
    """
    stages = _chosen()
    with components.refusals_shown():
        _read()
    seed = _controls(stages)
    toggle_list.draw(stages, [(_kind(stage), technique(stage.name)) for stage in stages], choose, place="compress")
    if not stages:
        _offer()
        _catalogue()
        return
    experiment = Experiment(model=model_name, stages=stages, seed=seed)
    if not any(item.saves is Saves.MEMORY for item in experiment.techniques):
        st.caption(_without_memory(experiment))
    compress_runs.offer([experiment])
    compress_results.one(experiment)
    _catalogue()


def link(stages: tuple[Toggle, ...]) -> dict[str, str]:
    """Return the address's part that leads to these techniques on the first model."""
    return {"stages": links.toggles_to_text(stages)}


def choose(stages: tuple[Toggle, ...]) -> None:
    """Change the address to these techniques, and the page to its pipeline."""
    session.choose(stages=links.toggles_to_text(stages) or None, view=None)


def _read() -> tuple[Toggle, ...]:
    stages: list[Toggle] = []
    for text in links.split_toggles(session.chosen("stages") or ""):
        pipeline = PIPELINES.get(text.strip().lower())
        stages.extend(map(Toggle.parse, pipeline.stages if pipeline else (text,)))
    for stage in stages:
        technique(stage.name).read_options(dict(stage.options))
    return tuple(stages)


def _chosen() -> tuple[Toggle, ...]:
    """Return the techniques of the address; none where it names what is not possible, which `draw` says."""
    try:
        return _read()
    except SpecError:
        return ()


def _controls(stages: tuple[Toggle, ...]) -> int:
    add, pipelines, seed = st.columns([3, 2, 1])
    with add:
        st.selectbox(
            "Add a technique",
            list(TECHNIQUES),
            index=None,
            placeholder=f"Type to search {len(TECHNIQUES)} techniques",
            format_func=_label,
            key=_ADD,
            on_change=partial(_add, stages),
            disabled=len(stages) >= MAX_STAGES,
            help="They are applied in the order below: prune, fine-tune, quantize, code.",
        )
    with pipelines:
        st.selectbox(
            "Or begin with a pipeline",
            list(PIPELINES),
            index=None,
            placeholder="Several in an order that has a name",
            format_func=lambda name: PIPELINES[name].label,
            key="compress_pipeline",
            on_change=_begin,
        )
    with seed:
        return int(
            st.number_input(
                "Seed",
                help="Of everything random: training batches, and what a student begins with.",
                **session.linked_number("seed", 0, 0, MAX_SEED),
            )
        )


def _add(stages: tuple[Toggle, ...]) -> None:
    name = session.recall(_ADD)
    session.remember(_ADD, None)
    if name is not None:
        choose((*stages, Toggle(name)))


def _begin() -> None:
    name = session.recall("compress_pipeline")
    session.remember("compress_pipeline", None)
    if name is not None:
        choose(tuple(map(Toggle.parse, PIPELINES[name].stages)))


def _offer() -> None:
    st.caption("Nothing is done to the model yet. Add techniques above, or begin with a pipeline:")
    with st.container(horizontal=True, gap="small"):
        for name, item in PIPELINES.items():
            take = partial(choose, tuple(map(Toggle.parse, item.stages)))
            st.button(item.label, on_click=take, key=f"compress_begin_{name}", help=item.explanation)


def _without_memory(experiment: Experiment) -> str:
    on_disk = any(item.saves is Saves.DISK for item in experiment.techniques)
    if on_disk:
        return "Saves on disk and in transfer only: the model is expanded before it runs, and takes as much memory as before."
    return (
        "Saves nothing by itself: zeros and shared values take as much memory and disk as other numbers. A sparse format leaves zeros out;"
        " a coder makes the file smaller."
    )


def _catalogue() -> None:
    """Draw, folded and made when it is opened, every technique with what it promises and does."""
    with st.expander("All techniques: what each promises, does, saves and costs", on_change="rerun", key="compress_catalogue") as box:
        if not box.open:
            return
        rows = [
            {
                "kind": item.kind.value,
                "technique": item.name,
                "promise": item.promise,
                "what": item.explanation,
                "saves": _SAVES[item.saves],
                "expected": item.formula,
                "here": item.to_install or "can be measured",
                "source": item.source,
            }
            for item in TECHNIQUES.values()
        ]
        components.table(pd.DataFrame(rows), key="techniques", alt="Every technique: its promise, what it does, its formula and source")


def _label(name: str) -> str:
    item = TECHNIQUES[name]
    missing = f" (needs {', '.join(item.needs)})" if item.to_install else ""
    return f"{item.kind.value.capitalize()}: {item.label}{missing}"


def _kind(stage: Toggle) -> str:
    item: Technique = technique(stage.name)
    return item.kind.value.capitalize()


def _model_label(name: str) -> str:
    return lab.MODELS[name].label if name in lab.MODELS else name

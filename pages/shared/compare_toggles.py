"""The toggles that are compared: found in the registry, in an order that the user chooses, with their options. The address carries them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import pandas as pd
import streamlit as st

from pages.shared import components, links, session, toggle_list
from pages.shared.allocator_editor import read_capacity
from profiler.analysis.budgets import Budgets
from profiler.devices import GPUS
from profiler.errors import SpecError
from profiler.optimizations.base import Family
from profiler.optimizations.registry import REGISTRY, families, limits_of, switch_on
from profiler.planner.comparison import MAX_TOGGLES, Comparison, knows_host
from profiler.recording import Provenance
from profiler.spec import Job, Toggle, WorkloadKind
from profiler.units import format_bytes

_ADD, _SWEEP = "compare_add", "sweep"
_ENGINES = {Provenance.MEASURED: "measured", Provenance.SIMULATED: "simulated"}
EXAMPLES = {
    WorkloadKind.TRAIN: (Toggle("bfloat16"), Toggle("checkpointing"), Toggle("adamw-8bit"), Toggle("lora")),
    WorkloadKind.PREFILL: (Toggle("bfloat16"), Toggle("flash")),
    WorkloadKind.DECODE: (Toggle("bfloat16"), Toggle("quantized-cache")),
}
"""What is offered where nothing is chosen yet."""


def draw(baseline: Job, engine: Provenance) -> tuple[Comparison | None, Budgets]:
    """Draw the choice of toggles or of a family, and the budgets; return what is to be compared, None where nothing is chosen, and these.

    Raises:
        SpecError: too many are chosen, or one twice.
    """
    kind = baseline.workload.kind
    offered = {family: items for family, items in families().items() if kind in family.workloads}
    toggles = _chosen()
    with components.refusals_shown():
        _read()
    budgets = _controls(baseline, engine, offered, toggles)
    family = next((family for family in offered if family.name == session.chosen(_SWEEP)), None)
    if family is not None:
        st.caption(f"{family.question} Every member that this baseline can have is tried alone, with its default options.")
        return Comparison.of_family(baseline, family, engine), budgets
    rows = [(REGISTRY[toggle.name].family.label, REGISTRY[toggle.name]) for toggle in toggles]
    toggle_list.draw(toggles, rows, _choose, place="compare", limits=limits_of)
    if not toggles:
        _offer(kind)
        return None, budgets
    return Comparison(baseline=baseline, toggles=toggles, engine=engine), budgets


def catalogue(baseline: Job) -> None:
    """Draw, folded and made when it is opened, every toggle with what it does and whether this baseline can have it."""
    with st.expander("All toggles: what each does, saves and costs", on_change="rerun", key="compare_catalogue") as box:
        if not box.open:
            return
        rows = [
            {
                "family": item.family.label,
                "toggle": item.name,
                "what": item.explanation,
                "expected": item.formula,
                "limits": " ".join(limits_of(item.name)),
                "here": _refusal(baseline, Toggle(item.name)) or "possible",
                "engines": ", ".join(_ENGINES[one] for one in _ENGINES if one in item.engines),
                "source": item.source,
            }
            for item in REGISTRY.values()
        ]
        components.table(pd.DataFrame(rows), key="catalogue", alt="Every toggle, its family, what it does, its formula and its source")


def _chosen() -> tuple[Toggle, ...]:
    """Return the toggles of the address; none where it names what is not possible, which `draw` says."""
    try:
        return _read()
    except SpecError:
        return ()


def _read() -> tuple[Toggle, ...]:
    toggles = links.toggles_from_text(session.chosen("toggles") or "")
    for toggle in toggles:
        REGISTRY[toggle.name].read_options(dict(toggle.options))
    return toggles


def _choose(toggles: tuple[Toggle, ...]) -> None:
    session.choose(toggles=links.toggles_to_text(toggles) or None, sweep=None)


def _controls(baseline: Job, engine: Provenance, offered: Collection[Family], toggles: tuple[Toggle, ...]) -> Budgets:
    """Draw the two ways to choose, one toggle after the other or a family to sweep, and the budgets, which are returned."""
    taken = {toggle.name for toggle in toggles}
    names = [name for name, item in REGISTRY.items() if item.family in offered and name not in taken]
    add, sweep, budget, host_budget = st.columns([3, 2, 2, 2])
    with add:
        st.selectbox(
            "Add a toggle",
            names,
            index=None,
            placeholder=f"Type to search {len(names)} optimizations",
            format_func=lambda name: f"{REGISTRY[name].family.label}: {REGISTRY[name].label}",
            key=_ADD,
            on_change=partial(_add, toggles),
            disabled=len(toggles) >= MAX_TOGGLES,
            help="Each takes the place of what the baseline has of its kind. Their order below is that of the waterfall.",
        )
    with sweep:
        options = ["", *(family.name for family in offered)]
        labels = {family.name: family.label for family in offered} | {"": "No: the toggles below"}
        st.selectbox("Or sweep a family", options, format_func=labels.__getitem__, **session.linked(_SWEEP, options))
    with budget:
        device_bytes = _budget(baseline)
    with host_budget:
        return Budgets(device_bytes=device_bytes, host_bytes=_host_budget(knows_host(baseline, engine)))


def _host_budget(is_known: bool) -> int | None:
    """Draw the field of the limit of what waits on the host; none by default, and where the host's bytes are not known."""
    text = st.text_input(
        "Host budget",
        placeholder="none, or 64 GiB" if is_known else "for a simulated GPU",
        help="What runs may hold on the host beside the GPU, pinned or not. Torch reports no pinned memory of a real GPU.",
        disabled=not is_known,
        **session.linked_text("host_budget", 20),
    )
    return read_capacity(text, "host budget") if is_known else None


def _budget(baseline: Job) -> int | None:
    """Draw the field of the limit that runs are to stay under; by default the memory of the job's GPU, on a CPU none."""
    gpu = GPUS.get(baseline.device)
    text = st.text_input(
        "Budget",
        placeholder=f"{format_bytes(gpu.memory_bytes)}, the card's memory" if gpu else "none, or 24 GiB",
        help="Drawn as a line: which runs stay under it? A plain number is GiB.",
        **session.linked_text("budget", 20),
    )
    return read_capacity(text, "budget") if text.strip() else gpu.memory_bytes if gpu else None


def _add(toggles: tuple[Toggle, ...]) -> None:
    name = session.recall(_ADD)
    session.remember(_ADD, None)
    if name is not None:
        _choose((*toggles, Toggle(name)))


def _offer(kind: WorkloadKind) -> None:
    example = EXAMPLES[kind]
    st.caption("Nothing is switched on yet. Add toggles above, sweep a family, or begin with an example:")
    take: Callable[[], None] = partial(_choose, example)
    st.button(" + ".join(REGISTRY[toggle.name].label for toggle in example), on_click=take, key="compare_example")


def _refusal(baseline: Job, toggle: Toggle) -> str | None:
    try:
        switch_on(baseline, (toggle,))
    except SpecError as error:
        return str(error)
    return None

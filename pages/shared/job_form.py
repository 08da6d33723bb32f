"""Widgets <-> a Job and what runs it. The optimizations are drawn from their registry, so a new family appears here by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from pages.shared import session
from profiler.devices import GPUS
from profiler.jobs.run import CAPTURE
from profiler.jobs.targets import CPU, DEFAULT_STEPS, Target, target_of, targets
from profiler.models.catalogue import CATALOGUE
from profiler.models.user_config import model_from_text
from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind
from profiler.optimizations.batching import WorkloadChange
from profiler.optimizations.registry import REGISTRY, families, limits_of, validate
from profiler.spec import MAX_BATCH, MAX_SEQ, MAX_STEPS, Job, Model, Toggle, Workload, WorkloadKind, ZeroGrad
from profiler.units import format_bytes, format_count

DEFAULT = Job(model=Model(name="tiny-gpt2"), workload=Workload(batch=4, seq=128))
EXAMPLE_ON_A_GPU = Job(
    model=Model(name="llama-3-8b"),
    workload=Workload(batch=1, seq=2048, steps=1),
    device="rtx-4090",
    toggles=(Toggle("adamw"), Toggle("bfloat16")),
)
"""What the start page offers to simulate."""
_OWN = "own configuration: "
_LAST, _HELD, _WAS, _OWN_MODELS = "job_form_last", "job_form_held", "job_form_was", "job_form_own_models"
_OFF = "off"
_FIRST = frozenset(("precision", "attention", "adapters", "activations", "quantization", "kv-cache", "optimizer"))
"""Families whose choice is always on screen; the others are among the settings that fold."""
_ZERO_GRAD = {
    ZeroGrad.AFTER_STEP: "After the optimizer step",
    ZeroGrad.BEFORE_FORWARD: "Before forward",
    ZeroGrad.BEFORE_BACKWARD: "Before backward",
}


def draw() -> tuple[Job, str]:
    """Draw the form and return the job it describes, in its canonical form, and the engine that is to run it.

    Raises:
        SpecError: the fields do not go together.
    """
    _seed()
    model_column, where_column, kind_column = st.columns([3, 3, 2])
    with model_column:
        model = _model()
    with where_column:
        target = _where()
    with kind_column:
        kind = WorkloadKind(
            str(
                st.segmented_control(
                    "Workload", [k.value for k in WorkloadKind], format_func=str.capitalize, key="form_kind", required=True
                )
            )
        )
    workload, chosen = _sizes(kind)
    with st.expander("More settings"):
        workload |= _details(kind)
        chosen += _more(kind)
        toggles = tuple(_toggle(item) for item in chosen)
    job = validate(Job(model=model, workload=Workload(kind=kind, **workload), device=target.device, toggles=toggles))
    session.remember(_LAST, (job, target.engine))
    return job, target.engine


def last() -> tuple[Job, str]:
    """Return the job that the form described when it was drawn last, and its engine."""
    described: tuple[Job, str] = session.recall(_LAST, (validate(DEFAULT), CAPTURE))
    return described


def fill(job: Job, engine: str) -> None:
    """Show a job in the form, which must not have been drawn yet in this run."""
    _fill(validate(job), engine)


def hold_address() -> None:
    """Take note that the form shows already what the address carries."""
    session.remember(_HELD, _carried())


def upload_config() -> None:
    """Draw the field for a transformers ``config.json``; the model it describes is chosen."""
    file = st.file_uploader(
        "A transformers `config.json`", type=["json"], key="form_config", help="Only sizes are read: no weights, no code."
    )
    if file is None or file.file_id == session.recall("job_form_read"):
        return
    model = model_from_text(file.getvalue(), file.name.removesuffix(".json"))
    session.remember("job_form_read", file.file_id)
    _choose_own(model)
    st.rerun()


def _seed() -> None:
    """Fill the widgets from the address' job where that is a new one; else from the last job where the page was left since."""
    carried = _carried()
    if carried[0] and carried != session.recall(_HELD):
        session.remember(_HELD, carried)
        _fill(validate(session.linked_job() or DEFAULT), carried[1])
    elif session.recall("form_kind") is None:
        _fill(*last())


def _carried() -> tuple[str | None, str | None]:
    return session.chosen("job"), session.chosen("engine")


def _fill(job: Job, engine: str | None) -> None:
    target = target_of(job.device, engine)
    session.remember("form_where", target)
    session.remember(_WAS, target)
    if job.model.config is None:
        session.remember("form_model", job.model.name)
    else:
        _choose_own(job.model)
    session.remember("form_kind", job.workload.kind.value)
    for name in (
        "batch",
        "seq",
        "steps",
        "warmup_steps",
        "micro_batches",
        "new_tokens",
        "zero_grad",
        "set_to_none",
        "keep_outputs",
        "seed",
    ):
        session.remember(f"form_{name}", getattr(job.workload, name))
    for family in families():
        session.remember(f"form_family_{family.name}", _unchosen(family))
    for toggle in job.toggles:
        item = REGISTRY[toggle.name]
        key = f"form_family_{item.family.name}"
        session.remember(key, item.name if item.family.exclusive else [*session.recall(key), item.name])
        for name, value in item.read_options(dict(toggle.options)).items():
            session.remember(f"form_option_{item.name}_{name}", value)


def _choose_own(model: Model) -> None:
    session.remember(_OWN_MODELS, {**session.recall(_OWN_MODELS, {}), _OWN + model.name: model})
    session.remember("form_model", _OWN + model.name)


def _model() -> Model:
    own: dict[str, Model] = session.recall(_OWN_MODELS, {})
    name = str(st.selectbox("Model", [*own, *CATALOGUE], format_func=_model_label, key="form_model"))
    return own.get(name) or Model(name=name)


def _model_label(name: str) -> str:
    entry = CATALOGUE.get(name)
    return f"{entry.label}: {name}, {format_count(entry.num_parameters_with_head)} parameters" if entry else name


def _where() -> Target:
    """Draw the choice of what the job runs on: measured here, or simulated."""
    gpus = {f"cuda:{gpu.index}": gpu.name for gpu in session.machine().latest.gpus}
    options = targets(gpu.index for gpu in session.machine().latest.gpus)
    if session.recall("form_where") not in options:
        session.remember("form_where", options[0])

    def label(target: Target) -> str:
        if target.engine == CAPTURE:
            return "Measure on this CPU" if target.device == CPU else f"Measure on GPU {target.device[5:]}: {gpus[target.device]}"
        gpu = GPUS.get(target.device)
        return f"Simulate on {gpu.label}, {format_bytes(gpu.memory_bytes)}" if gpu else "Simulate on this CPU"

    help_text = "A simulation needs no such GPU and seconds: the same code runs on tensors without memory. Type to search."
    return Target(*st.selectbox("Where", options, format_func=label, key="form_where", on_change=_moved, help=help_text))


def _moved() -> None:
    """Follow the new engine's default number of steps, unless the user chose another."""
    before, now = session.recall(_WAS), session.recall("form_where")
    session.remember(_WAS, now)
    if session.recall("form_steps") == DEFAULT_STEPS[before.engine]:
        session.remember("form_steps", DEFAULT_STEPS[now.engine])


def _sizes(kind: WorkloadKind) -> tuple[dict[str, Any], list[Optimization]]:
    """Draw the row of numbers and of the families that most jobs choose from; return the workload's fields and what is switched on."""
    shown = [family for family in families() if kind in family.workloads and family.name in _FIRST]
    grid = st.grid(3 + len(shown), min_column_width=150)
    tokens = "Prompt tokens" if kind is WorkloadKind.DECODE else "Sequence length"
    workload = {
        "batch": grid.number_input("Batch", 1, MAX_BATCH, key="form_batch", help="Sequences in one step."),
        "seq": grid.number_input(tokens, 1, MAX_SEQ, key="form_seq", help="Tokens a sequence."),
        "steps": grid.number_input("Steps", 1, MAX_STEPS, key="form_steps", help="Steps that count, after the warm-up."),
    }
    return workload, [item for family in shown for item in _choice(grid, family)]


def _more(kind: WorkloadKind) -> list[Optimization]:
    """Draw the other families; those that only say a field of the workload have their fields already."""
    shown = [family for family, items in families().items() if kind in family.workloads and not isinstance(items[0], WorkloadChange)]
    grid = st.grid(4, min_column_width=180)
    return [item for family in shown if family.name not in _FIRST for item in _choice(grid, family)]


def _choice(grid: Any, family: Family) -> list[Optimization]:
    """Draw what can be chosen of a family, one or several, and return what is."""
    items = families()[family]
    labels = {_OFF: family.off_label} | {item.name: item.label for item in items}
    names = [*([_OFF] if family.exclusive and not family.default else []), *(item.name for item in items)]
    key = f"form_family_{family.name}"
    if session.recall(key) is None or (family.exclusive and session.recall(key) not in names):
        session.remember(key, _unchosen(family))
    shown = {"format_func": labels.__getitem__, "key": key, "help": family.question}
    if not family.exclusive:
        return [REGISTRY[name] for name in grid.multiselect(family.label, names, placeholder=family.off_label, **shown)]
    name = str(grid.selectbox(family.label, names, **shown))
    return [] if name == _OFF else [REGISTRY[name]]


def _unchosen(family: Family) -> str | list[str]:
    """Return what the field of a family holds where nothing of it is switched on."""
    return (family.default or _OFF) if family.exclusive else []


def _details(kind: WorkloadKind) -> dict[str, Any]:
    grid = st.grid(4, min_column_width=180, vertical_alignment="bottom")
    fields: dict[str, Any] = {
        "warmup_steps": grid.number_input("Warm-up steps", 0, MAX_STEPS, key="form_warmup_steps", help="Steps before those that count."),
        "seed": grid.number_input("Seed", 0, 2**31 - 1, key="form_seed"),
    }
    if kind is WorkloadKind.DECODE:
        fields["new_tokens"] = grid.number_input(
            "New tokens", 1, MAX_SEQ, key="form_new_tokens", help="Tokens that decode makes in one step."
        )
    if kind is not WorkloadKind.TRAIN:
        return fields
    micro = grid.number_input(
        "Micro-batches", 1, MAX_BATCH, key="form_micro_batches", help="Equal parts of the batch; their gradients accumulate."
    )
    order = grid.selectbox("Gradients are dropped", list(ZeroGrad), format_func=_ZERO_GRAD.__getitem__, key="form_zero_grad")
    none = grid.checkbox("Set gradients to None", key="form_set_to_none", help="Off: they are filled with zeros and stay allocated.")
    keep = grid.checkbox("Keep outputs", key="form_keep_outputs", help="As loops do that never delete the model's outputs.")
    return fields | {"micro_batches": micro, "zero_grad": order, "set_to_none": none, "keep_outputs": keep}


def _toggle(item: Optimization) -> Toggle:
    """Draw an optimization's options with its explanation, and return it as a toggle."""
    st.markdown(f"**{item.label}.** {item.explanation}")
    st.caption(" ".join(limits_of(item.name)))
    if not item.parameters:
        return Toggle(item.name)
    options = []
    with st.grid(4, min_column_width=180, vertical_alignment="bottom"):
        for parameter in item.parameters:
            options.append((parameter.name, parameter.write(_option(item, parameter))))
    return Toggle(item.name, tuple(options))


def _option(item: Optimization, parameter: Parameter) -> Any:
    key = f"form_option_{item.name}_{parameter.name}"
    if session.recall(key) is None:
        session.remember(key, parameter.default)
    return option_field(parameter, key=key)


def option_field(parameter: Parameter, *, key: str, on_change: Callable[[], None] | None = None) -> Any:
    """Draw the field of an optimization's option and return its value.

    Args:
        parameter: what is asked for.
        key: of the widget, whose value the session holds already.
        on_change: called when the user changed it.
    """
    label = parameter.name.replace("_", " ")
    if parameter.kind is ParameterKind.CHOICE:
        return st.selectbox(label, parameter.choices, key=key, help=parameter.help, on_change=on_change)
    if parameter.kind is ParameterKind.BOOLEAN:
        return st.checkbox(label, key=key, help=parameter.help, on_change=on_change)
    kind = int if parameter.kind is ParameterKind.INTEGER else float
    low, high = (None if bound is None else kind(bound) for bound in (parameter.low, parameter.high))
    return st.number_input(label, low, high, key=key, help=parameter.help, format=None if kind is int else "%g", on_change=on_change)

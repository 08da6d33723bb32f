"""The registry of optimizations: toggles as text -> a checked job -> the `Setup` that runs it.

Importing this needs no torch; `setup_for` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from profiler.errors import SpecError, unknown_name
from profiler.models.catalogue import entry, facts_of
from profiler.models.config import check_workload
from profiler.optimizations import (
    activation_quantization,
    activations,
    adapters,
    allocator_settings,
    architecture,
    attention,
    batching,
    bottleneck,
    distillation,
    freezing,
    gpu_switches,
    kv_cache,
    lion_muon,
    loss,
    master_weights,
    offload,
    optimizer_in_backward,
    optimizers,
    packing,
    parallelism,
    precision,
    qlora,
    quantization,
    quantized_optimizers,
)
from profiler.optimizations.base import Family, Optimization, Value
from profiler.optimizations.scope import Conflict, any_of
from profiler.recording import Provenance
from profiler.spec import Job, Toggle

if TYPE_CHECKING:
    from profiler.workloads import Setup

_O = TypeVar("_O", bound=Optimization)

_ALL: tuple[Optimization, ...] = (
    *precision.OPTIMIZATIONS,
    *attention.OPTIMIZATIONS,
    *architecture.OPTIMIZATIONS,
    *adapters.OPTIMIZATIONS,  # before checkpointing, which looks at the layers that are there
    *qlora.OPTIMIZATIONS,
    *freezing.OPTIMIZATIONS,
    *bottleneck.OPTIMIZATIONS,
    *activations.OPTIMIZATIONS,
    *distillation.OPTIMIZATIONS,
    *loss.OPTIMIZATIONS,
    *packing.OPTIMIZATIONS,
    *batching.OPTIMIZATIONS,
    *quantization.OPTIMIZATIONS,
    *activation_quantization.OPTIMIZATIONS,
    *kv_cache.OPTIMIZATIONS,
    *optimizers.OPTIMIZATIONS,
    *lion_muon.OPTIMIZATIONS,
    *quantized_optimizers.OPTIMIZATIONS,
    *master_weights.OPTIMIZATIONS,  # after the optimizers, too: it gives them other parameters
    *optimizer_in_backward.OPTIMIZATIONS,  # after the optimizers, which it makes one a parameter of
    *allocator_settings.OPTIMIZATIONS,
    *gpu_switches.OPTIMIZATIONS,
    *offload.OPTIMIZATIONS,  # after all optimizers, whose step it moves, and all that changes the model
    *parallelism.OPTIMIZATIONS,  # last: ranks share what all the others have made
)

REGISTRY: Mapping[str, Optimization] = {item.name: item for item in _ALL}
"""Every optimization under its name, family by family, in the order in which pages show them."""

_ALIASES = {alias: item.name for item in _ALL for alias in item.aliases}


def families() -> dict[Family, tuple[Optimization, ...]]:
    """Return the optimizations of each family, in the order of the registry."""
    grouped: dict[Family, tuple[Optimization, ...]] = {}
    for item in REGISTRY.values():
        grouped[item.family] = (*grouped.get(item.family, ()), item)
    return grouped


def conflicts_of(name: str) -> dict[Conflict, tuple[str, ...]]:
    """Return why an optimization does not go with which others, whichever side declares it."""
    found = {conflict: conflict.others for conflict in REGISTRY[name].conflicts}
    for item in REGISTRY.values():
        for conflict in item.conflicts:
            if name in conflict.others:
                found[conflict] = (*found.get(conflict, ()), item.name)
    return found


def limits_of(name: str) -> list[str]:
    """Return what an optimization applies to and does not go with, a sentence each."""
    item = REGISTRY[name]
    kinds = any_of(sorted(item.family.workloads))
    return [f"Applies to {item.applies_to}, in {kinds}.", *(conflict.sentence(names) for conflict, names in conflicts_of(name).items())]


def is_said_by_job(item: Optimization) -> bool:
    """Return whether an optimization is only another way to write a field of the job, and so never among its toggles."""
    return type(item).rewrite is not Optimization.rewrite


def optimization(name: str) -> Optimization:
    """Return the optimization of this name or alias.

    Raises:
        SpecError: no optimization is called so.
    """
    lowered = name.lower().replace("_", "-")
    found = REGISTRY.get(_ALIASES.get(lowered, lowered))
    if found is None:
        raise unknown_name("optimization", name, (*REGISTRY, *_ALIASES), f"There are {', '.join(REGISTRY)}.")
    return found


def validate(job: Job) -> Job:
    """Return the job that ``job`` means: canonical names and options, with the default of each family that has none switched on.

    Options at their default are left out, so that equal runs are equal jobs.

    Raises:
        SpecError: an optimization or option is not known or does not fit, two exclude each other, or the model cannot run the workload.
    """
    toggles = list(dict.fromkeys(map(_canonical, job.toggles)))
    _check_exclusive(toggles)
    job, toggles = _rewritten(job, toggles)
    _check_conflicts(job, toggles)
    _refuse(job, toggles)  # once the job says all: sizes decide some
    check_workload(facts_of(job.model), job.workload, job.model.name)
    model = job.model if job.model.config is not None else replace(job.model, name=entry(job.model.name).name)
    return replace(job, model=model, toggles=(*toggles, *_defaults(job, toggles)))


def switch_on(job: Job, toggles: Iterable[Toggle]) -> Job:
    """Return ``job`` with more switched on: each takes the place of what the job has of the same name or exclusive family.

    Raises:
        SpecError: as `validate`; two of ``toggles`` may exclude each other too.
    """
    added = tuple(map(_canonical, toggles))
    taken = {family for toggle in added if (family := REGISTRY[toggle.name].family).exclusive}
    names, job = {toggle.name for toggle in added}, validate(job)
    kept = tuple(toggle for toggle in job.toggles if REGISTRY[toggle.name].family not in taken and toggle.name not in names)
    return validate(replace(job, toggles=(*kept, *added)))


def setup_for(job: Job) -> Setup:
    """Return how the job runs, after validating it: every switched-on optimization applied, in the order of the registry.

    Raises:
        SpecError: as `validate`.
    """
    from profiler.workloads import Setup

    job = validate(job)
    setup = Setup()
    toggles = {toggle.name: toggle for toggle in job.toggles}
    for item in REGISTRY.values():
        if item.name in toggles:
            item.apply(setup, item.read_options(dict(toggles[item.name].options)), job)
    return setup


def lacks_engine(job: Job, engine: Provenance) -> str | None:
    """Return why an engine cannot run a validated job, as a sentence that names the way out; None where it can."""
    for toggle in job.toggles:
        if engine not in REGISTRY[toggle.name].engines:
            only = " or ".join(sorted(REGISTRY[toggle.name].engines))
            return f"{toggle.name} can only be {only}, and this run would be {engine}. Have it {only}, or switch {toggle.name} off."
    return None


def chosen(job: Job, kind: type[_O]) -> tuple[_O, dict[str, Value]]:
    """Return the optimization of a kind that the job runs with, and a value for each of its parameters.

    Args:
        job: need not be validated.
        kind: the base class of an exclusive family that has a default and a meaning in this workload, such as `Precision`.

    Raises:
        SpecError: as `validate`.
    """
    toggle, item = next((toggle, item) for toggle in validate(job).toggles if isinstance(item := REGISTRY[toggle.name], kind))
    return item, item.read_options(dict(toggle.options))


def _canonical(toggle: Toggle) -> Toggle:
    item = optimization(toggle.name)
    values = item.read_options(dict(toggle.options))
    options = ((p.name, p.write(values[p.name])) for p in item.parameters if values[p.name] != p.default)
    return Toggle(item.name, tuple(sorted(options)))


def _rewritten(job: Job, toggles: list[Toggle]) -> tuple[Job, list[Toggle]]:
    """Return the job after those toggles that a job can say without them, and the toggles that are left."""
    left = []
    for toggle in sorted(toggles, key=lambda toggle: list(REGISTRY).index(toggle.name)):
        item = REGISTRY[toggle.name]
        if is_said_by_job(item):
            _refuse(job, [toggle])
        rewritten = item.rewrite(job, item.read_options(dict(toggle.options)))
        if rewritten is None:
            left.append(toggle)
        else:
            job = rewritten
    return job, left


def _refuse(job: Job, toggles: list[Toggle]) -> None:
    named = replace(job, toggles=tuple(toggles))
    for toggle in toggles:
        reason = REGISTRY[toggle.name].refusal(named)
        if reason is not None:
            raise SpecError(reason)


def _check_conflicts(job: Job, toggles: list[Toggle]) -> None:
    """Refuse what does not go together, of toggles and of what the job says without one."""
    given = {toggle.name: dict(toggle.options) for toggle in toggles} | {name: {} for name, item in REGISTRY.items() if item.is_said(job)}
    switched_on = {name: REGISTRY[name].read_options(options) for name, options in given.items()}
    for name in switched_on:
        for conflict in REGISTRY[name].conflicts:
            reason = conflict.refusal(name, job, switched_on)
            if reason is not None:
                raise SpecError(reason)


def _check_exclusive(toggles: list[Toggle]) -> None:
    taken: dict[Family, str] = {}
    names = set[str]()
    for toggle in toggles:
        family = REGISTRY[toggle.name].family
        if family.exclusive and family in taken:
            raise SpecError(
                f"{taken[family]} and {toggle.name} are both switched on, but a run has one {family.label.lower()}. Switch one off."
            )
        if toggle.name in names:
            raise SpecError(f"{toggle.name} is switched on twice, with different options. Keep one.")
        names.add(toggle.name)
        taken[family] = toggle.name


def _defaults(job: Job, toggles: list[Toggle]) -> list[Toggle]:
    taken = {REGISTRY[toggle.name].family for toggle in toggles}
    wanted = (family for family in families() if family not in taken and job.workload.kind in family.workloads)
    return [Toggle(family.default) for family in wanted if family.default is not None]

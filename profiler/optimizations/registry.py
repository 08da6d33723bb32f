"""The registry of optimizations: toggles as text -> a checked job -> the `Setup` that runs it.

Importing this needs no torch; `setup_for` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from profiler.errors import SpecError, unknown_name
from profiler.models.catalogue import entry, facts_of
from profiler.models.config import check_workload
from profiler.optimizations import activations, adapters, attention, kv_cache, optimizers, precision
from profiler.optimizations.base import Family, Optimization, Value
from profiler.spec import Job, Toggle

if TYPE_CHECKING:
    from profiler.workloads import Setup

_O = TypeVar("_O", bound=Optimization)

_ALL: tuple[Optimization, ...] = (
    *precision.OPTIMIZATIONS,
    *attention.OPTIMIZATIONS,
    *adapters.OPTIMIZATIONS,  # before checkpointing, which looks at the layers that are there
    *activations.OPTIMIZATIONS,
    *kv_cache.OPTIMIZATIONS,
    *optimizers.OPTIMIZATIONS,
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
    check_workload(facts_of(job.model), job.workload, job.model.name)
    toggles = list(dict.fromkeys(map(_canonical, job.toggles)))
    _check_exclusive(toggles)
    for toggle in toggles:
        reason = REGISTRY[toggle.name].refusal(job)
        if reason is not None:
            raise SpecError(reason)
    model = job.model if job.model.config is not None else replace(job.model, name=entry(job.model.name).name)
    return replace(job, model=model, toggles=(*toggles, *_defaults(job, toggles)))


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


def _check_exclusive(toggles: list[Toggle]) -> None:
    taken: dict[Family, str] = {}
    for toggle in toggles:
        family = REGISTRY[toggle.name].family
        if family.exclusive and family in taken:
            raise SpecError(
                f"{taken[family]} and {toggle.name} are both switched on, but a run has one {family.label.lower()}. Switch one off."
            )
        taken[family] = toggle.name


def _defaults(job: Job, toggles: list[Toggle]) -> list[Toggle]:
    taken = {REGISTRY[toggle.name].family for toggle in toggles}
    wanted = (family for family in families() if family not in taken and job.workload.kind in family.workloads)
    return [Toggle(family.default) for family in wanted if family.default is not None]

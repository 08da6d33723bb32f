"""A baseline and toggles -> the runs that show what each toggle saves, and from their footprints the comparison itself.

The runs: the baseline, each toggle alone, the toggles switched on one after the other (the waterfall), all together, and all but one.
Equal runs are planned once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from profiler.analysis.budgets import NO_BUDGETS, Budgets
from profiler.analysis.explanations import explain_saving
from profiler.analysis.footprint import Footprint
from profiler.analysis.savings import Interaction, Saving, dominated, interactions, waterfall
from profiler.devices import GPUS
from profiler.errors import SpecError
from profiler.optimizations.base import Family
from profiler.optimizations.registry import families, lacks_engine, optimization, switch_on, validate
from profiler.recording import Provenance
from profiler.spec import Job, Toggle

BASELINE = "baseline"
MAX_TOGGLES = 12

Switched = tuple[Toggle, ...]
"""The toggles that one run has beside the baseline, in the order of the comparison."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared. Jobs are validated when they are asked for.

    Raises:
        SpecError: too many toggles, or one twice.
    """

    baseline: Job
    toggles: tuple[Toggle, ...]
    """In the order of the waterfall."""
    together: bool = True
    """Whether they can be on at once; else each is only tried alone, as the members of a family are."""
    engine: Provenance | None = None
    """What runs them; jobs that it cannot run are refused. None leaves it open."""

    def __post_init__(self) -> None:
        if len(self.toggles) > MAX_TOGGLES:
            raise SpecError(f"{len(self.toggles)} toggles are too many to compare at once. Choose up to {MAX_TOGGLES}.")
        if len(set(self.toggles)) < len(self.toggles):
            twice = next(toggle for toggle in self.toggles if self.toggles.count(toggle) > 1)
            raise SpecError(f"{twice} is named twice. Name each toggle once.")

    @classmethod
    def of_family(cls, baseline: Job, family: Family, engine: Provenance | None = None) -> Self:
        """Return the comparison of all optimizations of a family, by their default options; `refusals` says which this job cannot have."""
        members = tuple(Toggle(item.name) for item in families()[family])
        return cls(baseline=baseline, toggles=members[:MAX_TOGGLES], together=False, engine=engine)

    @property
    def asked(self) -> Switched:
        """The run that was asked for: all toggles together; the baseline where they are only tried alone."""
        return self.toggles if self.together else ()

    @property
    def steps(self) -> tuple[Switched, ...]:
        """The runs of the waterfall, each with one toggle more; none where toggles are only tried alone."""
        return tuple(self.asked[: num + 1] for num in range(len(self.asked)))

    def jobs(self) -> dict[Switched, Job]:
        """Return every run's toggles and validated job, in the order in which they are wanted first.

        First the baseline and all together, then the waterfall, each alone, all but one. Runs that are not possible by themselves, such as
        a toggle that needs another one, are left out; `refusals` says why.

        Raises:
            SpecError: the baseline or the waterfall is not possible.
        """
        jobs = {switched: self.job(switched) for switched in dict.fromkeys(((), self.asked, *self.steps))}
        for switched in self._optional():
            if switched not in jobs:
                with suppress(SpecError):
                    jobs[switched] = self.job(switched)
        return jobs

    def job(self, switched: Switched) -> Job:
        """Return the job of the baseline with some of the toggles.

        Raises:
            SpecError: it is not possible, or not for the engine.
        """
        job = switch_on(self.baseline, switched) if switched else validate(self.baseline)
        reason = None if self.engine is None else lacks_engine(job, self.engine)
        if reason is not None:
            raise SpecError(reason)
        return job

    def refusals(self) -> dict[Switched, str]:
        """Return why runs are left out."""
        found = {}
        for switched in self._optional():
            try:
                self.job(switched)
            except SpecError as error:
                found[switched] = str(error)
        return found

    def _optional(self) -> list[Switched]:
        alone: list[Switched] = [(toggle,) for toggle in self.toggles]
        return alone + ([self.without(toggle) for toggle in self.toggles] if self.together and len(self.toggles) > 1 else [])

    def without(self, toggle: Toggle) -> Switched:
        """Return all toggles but one."""
        return tuple(other for other in self.toggles if other != toggle)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A comparison whose runs are here, or some of them."""

    comparison: Comparison
    footprints: Mapping[Switched, Footprint]
    failures: Mapping[Switched, str] = field(default_factory=dict)
    """Why runs gave no result."""
    budgets: Budgets = NO_BUDGETS
    """What the runs are held against."""

    @cached_property
    def savings(self) -> tuple[Saving, ...]:
        """The steps of the waterfall, as far as their runs are here without a gap; where toggles are only tried alone, each alone."""
        if () not in self.footprints:
            return ()
        baseline = self.footprints[()]
        if not self.comparison.together:
            return tuple(saving for toggle in self.comparison.toggles if (saving := self.alone(toggle)) is not None)
        steps = []
        for switched in self.comparison.steps:
            footprint = self.footprints.get(switched)
            if footprint is None:
                break
            steps.append((str(switched[-1]), footprint))
        return waterfall(baseline, steps)

    def alone(self, toggle: Toggle) -> Saving | None:
        """Return what a toggle saves by itself; None while its run is not here."""
        before, after = self.footprints.get(()), self.footprints.get((toggle,))
        return Saving(toggle=str(toggle), before=before, after=after) if before and after else None

    @cached_property
    def interactions(self) -> tuple[Interaction, ...]:
        """What each toggle saves first and last; nothing where all together is not here."""
        baseline, together = self.footprints.get(()), self.footprints.get(self.comparison.toggles)
        if baseline is None or together is None or not self.comparison.together:
            return ()
        toggles = self.comparison.toggles
        alone = {str(toggle): self.footprints.get((toggle,)) for toggle in toggles}
        return interactions(
            baseline, together, alone, {str(toggle): self.footprints.get(self.comparison.without(toggle)) for toggle in toggles}
        )

    @cached_property
    def dominated(self) -> frozenset[Switched]:
        """The runs that another one beats in bytes, of the device and of the host, time and loss."""
        names = {name_of(switched): switched for switched in self.footprints}
        points = {name: _point(self.footprints[switched]) for name, switched in names.items()}
        return frozenset(names[name] for name in dominated(points))

    def explanations(self) -> dict[str, list[str]]:
        """Return what to say of each step of the waterfall."""
        return {saving.toggle: explain_saving(saving, self.budgets) for saving in self.savings}

    def to_json(self) -> dict[str, Any]:
        """Return plain data: baseline, runs, waterfall, interactions, explanations, refused."""
        return {
            "baseline": self.comparison.job(()).to_json(),
            "toggles": [str(toggle) for toggle in self.comparison.toggles],
            "runs": [self._run_json(switched) for switched in self.comparison.jobs() if switched in self.footprints],
            "waterfall": [
                {
                    "toggle": saving.toggle,
                    "saved_bytes": saving.saved_bytes,
                    "saved_by_category": {category.name: num_bytes for category, num_bytes in saving.saved_by_category.items()},
                }
                for saving in self.savings
            ],
            "interactions": [
                {"toggle": item.toggle, "alone_bytes": item.alone_bytes, "last_bytes": item.last_bytes, "kind": item.kind}
                for item in self.interactions
            ],
            "explanations": self.explanations(),
            "refused": {name_of(switched): reason for switched, reason in {**self.comparison.refusals(), **self.failures}.items()},
        }

    def _run_json(self, switched: Switched) -> dict[str, Any]:
        toggles = [str(toggle) for toggle in switched]
        footprint, baseline = self.footprints[switched], self.footprints.get(())
        against = None if baseline is None else footprint.loss_against(baseline)
        change = {"loss_against_baseline": against and against[0], "loss_differs": against and against[1]}
        verdicts = {str(verdict.tier): verdict.to_json() for verdict in self.budgets.verdicts(footprint)}
        return {"toggles": toggles, "dominated": switched in self.dominated, **footprint.to_json(), **change, "budgets": verdicts}


def knows_host(baseline: Job, engine: Provenance | None) -> bool:
    """Return whether runs tell what they hold on the host: of a simulated GPU they do; torch reports no pinned memory of a real one."""
    return engine is Provenance.SIMULATED and baseline.device in GPUS


def name_of(switched: Switched) -> str:
    """Return what a list calls a run, such as ``bfloat16 + checkpointing``."""
    return " + ".join(map(str, switched)) or BASELINE


def parse_toggles(texts: Iterable[str]) -> tuple[Toggle, ...]:
    """Return toggles under their canonical names, in the order given.

    Raises:
        SpecError: an optimization is not known, or a text names none.
    """
    toggles = (Toggle.parse(text) for text in texts)
    return tuple(replace(toggle, name=optimization(toggle.name).name) for toggle in toggles)


def _point(footprint: Footprint) -> tuple[float | None, ...]:
    """Return what is to be small: bytes of the device and of the host beside it, seconds, loss."""
    seconds = footprint.cpu_seconds.median if footprint.cpu_seconds else footprint.estimated_step_seconds
    return (footprint.peak_bytes, footprint.moved_to_host_bytes, seconds, footprint.loss)

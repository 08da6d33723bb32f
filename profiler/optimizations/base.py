"""What an optimization is: its description, its options, and how it changes a `Setup`.

Nothing here or in a family's module imports torch before `Optimization.apply` runs, so that pages can show the registry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from profiler.errors import SpecError, unknown_name
from profiler.optimizations.scope import Conflict, Scope
from profiler.recording import Provenance
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from profiler.workloads import Setup

Value = str | int | float | bool


class ParameterKind(StrEnum):
    """How an option is written and drawn."""

    NUMBER = "number"
    INTEGER = "integer"
    CHOICE = "choice"
    BOOLEAN = "boolean"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One option of an optimization."""

    name: str
    kind: ParameterKind
    default: Value
    help: str
    low: float | None = None
    """The least that a number may be."""
    high: float | None = None
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> Value:
        """Return the value that ``text`` names.

        Raises:
            SpecError: the text is no value of this option.
        """
        if self.kind is ParameterKind.CHOICE:
            if text.lower() not in self.choices:
                raise unknown_name(self.name, text, self.choices, f"Choose one of {', '.join(self.choices)}.")
            return text.lower()
        if self.kind is ParameterKind.BOOLEAN:
            return self._parse_boolean(text)
        return self._parse_number(text)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; bounds and choices where there are any."""
        bounds = {"low": self.low, "high": self.high, "choices": list(self.choices) or None}
        given = {name: value for name, value in bounds.items() if value is not None}
        return {"name": self.name, "kind": self.kind.value, "default": self.default, **given, "help": self.help}

    def write(self, value: Value) -> str:
        """Return the canonical text of a value."""
        if isinstance(value, bool):
            return str(value).lower()
        return repr(value) if isinstance(value, float) else str(value)

    def _parse_boolean(self, text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise SpecError(f"{self.name}={text} is not possible. Use true or false.")
        return text.lower() == "true"

    def _parse_number(self, text: str) -> int | float:
        try:
            value = int(text) if self.kind is ParameterKind.INTEGER else float(text)
        except ValueError:
            value = float("nan")
        low = self.low if self.low is not None else float("-inf")
        high = self.high if self.high is not None else float("inf")
        if not low <= value <= high:
            kind = "whole number" if self.kind is ParameterKind.INTEGER else "number"
            raise SpecError(f"{self.name}={text} is not possible. Use a {kind} from {low:g} to {high:g}.")
        return value


@dataclass(frozen=True, kw_only=True)
class Family:
    """Optimizations of one kind."""

    name: str
    label: str
    question: str
    """What choosing one of them decides."""
    exclusive: bool = True
    """At most one of them is switched on."""
    default: str | None = None
    """What holds where none is switched on."""
    off_label: str = "Off"
    """What a page calls none of them, where there is no default."""
    workloads: frozenset[WorkloadKind] = frozenset(WorkloadKind)
    """The workloads in which the family means anything."""


class Optimization(ABC):
    """One thing that can be switched on. Adding one is a subclass in its family's module and its line in the registry."""

    name: ClassVar[str]
    """The field's word for it, as toggles write it."""
    family: ClassVar[Family]
    label: ClassVar[str]
    explanation: ClassVar[str]
    """One paragraph: what it does, what it saves, what it costs."""
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    aliases: ClassVar[tuple[str, ...]] = ()
    engines: ClassVar[frozenset[Provenance]] = frozenset((Provenance.MEASURED, Provenance.SIMULATED))
    """What can run it: measured on a machine, simulated, or both."""
    applies_to: ClassVar[Scope]
    conflicts: ClassVar[tuple[Conflict, ...]] = ()
    """What it does not go with. Each pair is declared once, by one of the two: `registry.conflicts_of` knows both sides."""
    formula: ClassVar[str]
    """The bytes to expect, as text."""
    source: ClassVar[str]

    @abstractmethod
    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Change how the job runs.

        Args:
            setup: is changed.
            options: a value for every parameter.
            job: what is run, to read only.
        """

    def rewrite(self, job: Job, options: Mapping[str, Value]) -> Job | None:
        """Return the job that this one means with the optimization on, where that can be said without a toggle; None where it cannot.

        What a `Job` has a field for, such as micro-batches, has its home there: the toggle is only another way to say it.
        """
        return None

    def is_said(self, job: Job) -> bool:
        """Tell whether the job says it without a toggle, as `rewrite` makes a job say it."""
        return False

    def refusal(self, job: Job) -> str | None:
        """Return why this job cannot have it, as a sentence that names the way out; None where it can.

        What it does not go with is declared in `conflicts`. A subclass adds what depends on sizes, options or the card.
        """
        if job.workload.kind in self.family.workloads:
            return self.applies_to.refusal(self.name, job)
        allowed = " or ".join(sorted(self.family.workloads))
        return f"{self.name} has no effect in {job.workload.kind}: {self.family.label.lower()} is for {allowed}. Switch it off."

    def to_json(self) -> dict[str, Any]:
        """Return plain data that describes it."""
        return {
            "id": self.name,
            "family": self.family.name,
            "label": self.label,
            "aliases": list(self.aliases),
            "parameters": [parameter.to_json() for parameter in self.parameters],
            "engines": sorted(map(str, self.engines)),
            "workloads": sorted(map(str, self.family.workloads)),
            "applies_to": self.applies_to.to_json(),
            "exclusive": self.family.exclusive,
            "default": self.family.default == self.name,
            "explanation": self.explanation,
            "formula": self.formula,
            "source": self.source,
        }

    def read_options(self, options: Mapping[str, str]) -> dict[str, Value]:
        """Return a value for every parameter, given or default.

        Raises:
            SpecError: an option is not known or its value not possible.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in options:
            if name not in known:
                listed = f"It has {', '.join(known)}." if known else "It has no options."
                raise unknown_name(f"option of {self.name}", name, known, listed)
        return {name: item.parse(options[name]) if name in options else item.default for name, item in known.items()}

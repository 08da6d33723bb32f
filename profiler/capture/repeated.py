"""What the steps of a run took when they were run again without a profiler <-> the fact of a recording that holds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from profiler.recording import Metadata

_FACT = "repeat"


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """One value a step after the warm-up; nothing where nothing was run again."""

    cpu_seconds: tuple[float, ...] = ()
    """Processor time of the process."""
    wall_seconds: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    """None without training."""

    @classmethod
    def of(cls, metadata: Metadata) -> Self:
        """Return what a recording holds; a file may come from anywhere, and what is no list of numbers is nothing."""
        fact = metadata.facts.get(_FACT)
        return cls(**{name: _numbers(fact.get(name)) for name in cls.__dataclass_fields__}) if isinstance(fact, dict) else cls()

    def to_facts(self) -> dict[str, Any]:
        """Return it as a recording's facts hold it."""
        return {_FACT: asdict(self)}


def _numbers(values: Any) -> tuple[float, ...]:
    is_known = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
    return tuple(map(float, values)) if is_known else ()

"""The declared rules that say what an imported block is for: a JSON file, read and checked.

A rule of ``phases`` says in which phase an event happened, by an annotation that was running or by a frame of its stack. A rule of
``blocks`` says what a block is, by its user metadata, its stack of birth, the phases of its birth and death, or that it is older. In
both the first rule that holds decides. Frames are matched as ``file:function`` with ``/`` between folders.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from profiler.errors import SpecError
from profiler.recording import Phase, Role
from profiler.units import MIB

_OWN_RULES = Path(__file__).with_name("category_rules.json")
_MAX_RULES = 500
_MAX_FILE_BYTES = MIB
BEFORE = "before"
"""Stands for a phase where a block is older than the recording."""


@dataclass(frozen=True, kw_only=True)
class PhaseRule:
    """One way to tell the phase of an event; exactly one of the conditions is set."""

    name: str
    phase: Phase
    annotation: re.Pattern[str] | None = None
    frame: re.Pattern[str] | None = None
    no_python_frame: bool = False


@dataclass(frozen=True, kw_only=True)
class BlockRule:
    """One way to tell what a block is; all conditions that are set must hold."""

    name: str
    role: Role = Role.NONE
    """Added to the block's roles; without one the phases alone decide, as for recordings of our own."""
    phase: Phase | None = None
    """The phase that the block counts as born in, where that is not the event's."""
    metadata: re.Pattern[str] | None = None
    frame: re.Pattern[str] | None = None
    born_in: str | None = None
    """A phase, or `BEFORE`."""
    freed_in: Phase | None = None
    outlives_next: Phase | None = None
    """Still there when the next interval of this phase after its birth had ended."""
    requested_bytes: int | None = None
    outlives_phase: bool | None = None
    """Whether it was still there when the interval that it was born in ended."""


@dataclass(frozen=True)
class Rules:
    """All rules, in the order they are tried."""

    phases: tuple[PhaseRule, ...]
    blocks: tuple[BlockRule, ...]


def read_rules(path: Path | str | None = None) -> Rules:
    """Return Headroom's own rules; those of ``path`` come before them.

    Args:
        path: a JSON file of the same form as ``profiler/formats/category_rules.json``, with ``phases``, ``blocks`` or both.

    Raises:
        SpecError: the file cannot be read or holds a rule that is not one.
    """
    own = _parse(_OWN_RULES)
    if path is None:
        return own
    first = _parse(Path(path))
    return Rules(first.phases + own.phases, first.blocks + own.blocks)


def _parse(path: Path) -> Rules:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise SpecError(f"{path.name} has over {_MAX_FILE_BYTES:,} bytes. Write fewer rules.")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"{path.name} is no file of rules ({error}). See profiler/formats/category_rules.json for one.") from error
    if not isinstance(data, dict) or data.keys() - {"phases", "blocks"}:
        raise SpecError(f"{path.name} is no file of rules: an object with the lists phases and blocks is expected.")
    lists = [_list(data, name, path.name) for name in ("phases", "blocks")]
    phases = tuple(_phase_rule(row, f"{path.name}, phase rule {number}") for number, row in enumerate(lists[0], 1))
    return Rules(phases, tuple(_block_rule(row, f"{path.name}, block rule {number}") for number, row in enumerate(lists[1], 1)))


def _list(data: dict[str, Any], name: str, where: str) -> list[Any]:
    rows = data.get(name, [])
    if not isinstance(rows, list) or len(rows) > _MAX_RULES:
        raise SpecError(f"{where}: {name} is not a list of at most {_MAX_RULES} rules.")
    return rows


def _phase_rule(row: Any, where: str) -> PhaseRule:
    values = _checked(row, where, {"annotation", "frame"}, {"no_python_frame"}, {"phase"})
    if len(values.keys() & {"annotation", "frame", "no_python_frame"}) != 1 or "phase" not in values:
        raise SpecError(f"{where} needs a phase and one of annotation, frame and no_python_frame.")
    return PhaseRule(**cast(Any, values))


def _block_rule(row: Any, where: str) -> BlockRule:
    values = _checked(row, where, {"metadata", "frame"}, {"outlives_phase"}, {"phase", "freed_in", "outlives_next", "born_in"}, "role")
    if not values.keys() - {"name", "role", "phase"}:
        raise SpecError(
            f"{where} has no condition. Give it metadata, frame, born_in, freed_in, outlives_next, requested_bytes or outlives_phase."
        )
    return BlockRule(**cast(Any, values))


def _checked(row: Any, where: str, patterns: set[str], truths: set[str], phases: set[str], role: str = "") -> dict[str, Any]:
    """Return a rule's fields, each as what it stands for."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not 0 < len(row["name"]) <= 200:
        raise SpecError(f"{where} has no name.")
    values: dict[str, Any] = {}
    for key, value in row.items():
        if key in patterns:
            values[key] = _pattern(value, f"{where}: {key}")
        elif key in truths and isinstance(value, bool):
            values[key] = value
        elif key in phases:
            values[key] = BEFORE if key == "born_in" and value == BEFORE else _phase(value, f"{where}: {key}")
        elif role and key == role:
            values[key] = _role(value, where)
        elif key == "name" or (role and key == "requested_bytes" and type(value) is int and value > 0):
            values[key] = value
        else:
            raise SpecError(
                f"{where}: {key}={value!r} is not possible. Fields: {', '.join(sorted({'name'} | patterns | truths | phases))}."
            )
    return values


def _pattern(value: Any, where: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except (re.error, TypeError) as error:
        raise SpecError(f"{where} is no regular expression ({error}).") from error


def _phase(value: Any, where: str) -> Phase:
    try:
        return Phase(value)
    except ValueError:
        raise SpecError(f"{where}={value!r} is no phase. Use one of {', '.join(Phase)}.") from None


def _role(value: Any, where: str) -> Role:
    role = Role.NONE
    for name in str(value).split("|"):
        if name.strip() not in Role.__members__:
            raise SpecError(f"{where}: {value!r} is no role. Use one of {', '.join(Role.__members__)}.")
        role |= Role[name.strip()]
    return role

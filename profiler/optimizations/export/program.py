"""What is exported: a text for a file, and what it does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from profiler.optimizations.base import Value
from profiler.optimizations.registry import REGISTRY, validate
from profiler.spec import Job, Workload, ZeroGrad

_KEPT_WHERE_NOTHING_CHANGES = ("tied-embeddings", "grouped-query", "packing")
"""What a job says by its model or batch: where one of them is still a toggle, the job was so before."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A job in the words of one tool."""

    tool: str
    filename: str
    language: str
    """As syntax highlighting calls it."""
    text: str
    missing: tuple[str, ...] = ()
    """Sentences: what of the job it does not say."""


def switched_on(job: Job) -> dict[str, Mapping[str, Value]]:
    """Return a value for every option of every optimization that a job runs with, by name, in the order in which they are applied.

    Raises:
        SpecError: the job is not possible.
    """
    toggles = {toggle.name: dict(toggle.options) for toggle in validate(job).toggles}
    return {
        name: item.read_options(toggles[name])
        for name, item in REGISTRY.items()
        if name in toggles and name not in _KEPT_WHERE_NOTHING_CHANGES
    }


Said = dict[str, frozenset[str]]
"""The options that a text says, by the optimization that it says."""
ALL = frozenset(("*",))
"""All options of an optimization."""


def not_said(toggles: Mapping[str, Mapping[str, Value]], said: Said, tool: str) -> list[str]:
    """Return a sentence for each optimization that a text does not say, and for each of its options that is not the default one."""
    return [sentence for name, options in toggles.items() for sentence in _not_said(name, options, said.get(name), tool)]


def _not_said(name: str, options: Mapping[str, Value], said: frozenset[str] | None, tool: str) -> list[str]:
    if said is None:
        return [f"{name}: {tool} has no setting for it that is known here. The PyTorch script may have it."]
    unsaid = [item for item in REGISTRY[name].parameters if said != ALL and item.name not in said and options[item.name] != item.default]
    return [f"{name}:{item.name}={item.write(options[item.name])}: {tool} decides this itself." for item in unsaid]


def zero_grad_not_said(workload: Workload, tool: str, *places: ZeroGrad) -> list[str]:
    """Return the sentence for gradients that the job drops at another place than the tool, or keeps.

    Args:
        workload: of the job.
        tool: its name.
        places: where it drops them, and others with the same peak.
    """
    if workload.set_to_none and workload.zero_grad in places:
        return []
    return [f"zero_grad: {tool} drops gradients {str(places[0]).replace('_', ' ')}, and never fills them with zeros."]


def commented(text: str, missing: Sequence[str]) -> str:
    """Return a program that begins with what it does not say, as comments of Python and of TOML; nothing where there is no program."""
    if not text:
        return ""
    lines = ["".join(letter if letter.isprintable() else " " for letter in f"# Not said: {sentence}") for sentence in missing]
    return "\n".join([*lines, text])


def one_line(text: str) -> str:
    """Return a title as it may stand between Python's triple quotes."""
    return text.replace("\\", "").replace('"', "'")


def call_lines(name: str, function: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return the lines that call a function with these arguments, one a line, and give its result a name."""
    return [f"{name} = {function}(", *(f"    {key}={value!r}," for key, value in arguments.items()), ")"]

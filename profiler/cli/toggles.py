"""``toggles``: every optimization that can be switched on, its options, and what can run it; as a list, JSON or the page of the docs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from profiler.cli.command import DONE, Commands, add_command, print_json
from profiler.optimizations.base import Optimization, Parameter
from profiler.optimizations.registry import REGISTRY, conflicts_of, families, limits_of


def add(commands: Commands) -> None:
    """Declare the command."""
    command = add_command(commands, "toggles", _run, "list the optimizations that can be switched on")
    command.add_argument("--markdown", action="store_true", help="print all that is known of them, as docs/toggles.md has it")


def _run(options: argparse.Namespace) -> int:
    if options.json:
        print_json([_data(item) for item in REGISTRY.values()])
    elif options.markdown:
        print("\n".join(_document()))
    else:
        for family, items in families().items():
            print(f"{family.label}: {family.question}")
            for item in items:
                parameters = ", ".join(f"{parameter.name}={parameter.write(parameter.default)}" for parameter in item.parameters)
                print(f"  {item.name:<26} {item.label}{f' ({parameters})' if parameters else ''}")
    return DONE


def _data(item: Optimization) -> dict[str, Any]:
    """Return all that is known of an optimization, with what it does not go with from both sides."""
    conflicts = [{"with": other} | why.to_json() for why, others in conflicts_of(item.name).items() for other in others]
    return item.to_json() | {"conflicts": conflicts}


def _document() -> Iterator[str]:
    yield "# Toggles"
    yield ""
    yield "Every optimization that Headroom can switch on, from its registry. This page is made by `make docs`; `compare --toggle NAME`,"
    yield "`profile --toggle NAME` and the pages Profile and Compare take the names and options below."
    for family, items in families().items():
        yield from ("", f"## {family.label}", "", f"{family.question} {_rule(items[0])}")
        for item in items:
            yield from _section(item)


def _rule(item: Optimization) -> str:
    family = item.family
    one = "A run has at most one of them" if family.exclusive else "Any of them can be on together"
    default = f"; without one, `{family.default}`" if family.default else ""
    return f"{one}{default}. For {', '.join(sorted(family.workloads))}."


def _section(item: Optimization) -> Iterator[str]:
    yield from ("", f"### `{item.name}`: {item.label}", "", item.explanation, "")
    yield f"- Bytes: {item.formula}"
    for parameter in item.parameters:
        yield f"- `{parameter.name}` ({_values(parameter)}; default {parameter.write(parameter.default)}): {parameter.help}"
    if item.aliases:
        yield f"- Also called {', '.join(f'`{alias}`' for alias in item.aliases)}"
    yield from (f"- {sentence}" for sentence in limits_of(item.name))
    yield f"- Can be {' or '.join(sorted(map(str, item.engines)))}"
    yield f"- Source: {item.source}"


def _values(parameter: Parameter) -> str:
    if parameter.choices:
        return ", ".join(parameter.choices)
    if parameter.low is not None and parameter.high is not None:
        return f"{parameter.low:g} to {parameter.high:g}"
    return parameter.kind.value

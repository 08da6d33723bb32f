"""``models``: the named models."""

from __future__ import annotations

import argparse

from profiler.cli.command import DONE, Commands, add_command, print_json
from profiler.models.catalogue import CATALOGUE
from profiler.units import format_count

_FACTS = ("name", "family", "num_parameters", "num_parameters_with_head", "max_positions", "tiny", "source")


def add(commands: Commands) -> None:
    """Declare the command."""
    add_command(commands, "models", _run, "list the named models")


def _run(options: argparse.Namespace) -> int:
    if options.json:
        print_json([{name: getattr(entry, name) for name in _FACTS} | {"head": entry.head.value} for entry in CATALOGUE.values()])
    else:
        for entry in CATALOGUE.values():
            print(f"{entry.name:<18} {format_count(entry.num_parameters):>9}  {entry.label}")
    return DONE

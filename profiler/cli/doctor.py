"""``doctor``: what this machine can measure."""

from __future__ import annotations

import argparse

from profiler.cli.command import DONE, Commands, add_command, print_json


def add(commands: Commands) -> None:
    """Declare the command."""
    add_command(commands, "doctor", _run, "say what this machine can measure, and why not what it cannot")


def _run(options: argparse.Namespace) -> int:
    from profiler.capture.doctor import examine  # loads torch

    findings = examine()
    if options.json:
        print_json(findings)
    else:
        for name, finding in findings.items():
            print(f"{name.replace('_', ' '):<12} {finding}")
    return DONE

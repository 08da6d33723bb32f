"""``show``: what a recording holds. Needs neither torch nor what the dashboard needs."""

from __future__ import annotations

import argparse
from pathlib import Path

from profiler.analysis.summary import summarize
from profiler.cli.command import DONE, Commands, add_command, print_json, print_summary
from profiler.storage import SUFFIX, read_recording


def add(commands: Commands) -> None:
    """Declare the command."""
    show = add_command(commands, "show", _run, "print what a recording holds: its peak and what was there")
    show.add_argument("file", type=Path, help=f"a {SUFFIX} file, or the .partial folder of a recording in progress")


def _run(options: argparse.Namespace) -> int:
    summary = summarize(read_recording(options.file))
    print_json(summary) if options.json else print_summary(summary)
    return DONE

"""``import``: another tool's snapshot, kept as a recording."""

from __future__ import annotations

import argparse
from pathlib import Path

from profiler.analysis.summary import summarize
from profiler.cli.command import DONE, Commands, add_command, output_path, print_json, print_summary
from profiler.cli.reading import add_file_option, add_reading_options, progress_shown, reading_of
from profiler.formats.opening import import_file
from profiler.storage import SUFFIX


def add(commands: Commands) -> None:
    """Declare the command."""
    command = add_command(commands, "import", _run, "keep a CUDA memory snapshot, or a folder of them, as a recording")
    add_file_option(command)
    command.add_argument("--out", type=Path, required=True, help=f"the recording's file, NAME{SUFFIX}")
    add_reading_options(command)
    command.epilog = (
        "The file is read by a process of its own that runs nothing in it and may take 1 GiB and four times its size of memory. Categories"
        " are told by rules; --json lists under category_rules how many bytes each rule named."
    )


def _run(options: argparse.Namespace) -> int:
    out = output_path(options.out, SUFFIX)
    reading = reading_of(options)
    with progress_shown(f"Reading {options.file.name}") as progress:
        recording = import_file(options.file, out, reading, progress)
    summary = summarize(recording) | {"path": str(out), "category_rules": recording.metadata.facts.get("category_rules", [])}
    print_json(summary) if options.json else print_summary(summary)
    return DONE

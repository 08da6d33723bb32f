"""``import``: another tool's snapshot, kept as a recording."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from profiler.analysis.summary import summarize
from profiler.cli.command import DONE, Commands, add_command, output_path, print_json, print_summary
from profiler.cli.reading import add_file_option, add_reading_options, progress_shown, reading_of
from profiler.formats.opening import import_file
from profiler.storage import SUFFIX
from profiler.units import format_bytes


def add(commands: Commands) -> None:
    """Declare the command."""
    command = add_command(commands, "import", _run, "keep a CUDA memory snapshot, or a folder of them, as a recording")
    add_file_option(command)
    command.add_argument("--out", type=Path, required=True, help=f"the recording's file, NAME{SUFFIX}")
    add_reading_options(command)
    command.epilog = (
        "The file is read by a process of its own that runs nothing in it and may take 1 GiB and four times its size of memory. Categories"
        " are told by rules: what each rule named is listed, with its share of the bytes at the peak; in --json as category_rules."
    )


def _run(options: argparse.Namespace) -> int:
    out = output_path(options.out, SUFFIX)
    reading = reading_of(options)
    with progress_shown(f"Reading {options.file.name}") as progress:
        recording = import_file(options.file, out, reading, progress)
    summary = summarize(recording) | {"path": str(out), "category_rules": recording.metadata.facts.get("category_rules", [])}
    if options.json:
        print_json(summary)
    else:
        print_summary(summary)
        for line in coverage_lines(summary["category_rules"]):
            print(line)
    return DONE


def coverage_lines(rules: list[dict[str, Any]]) -> list[str]:
    """Return how much of the peak each rule named, as lines of a table; the largest first, as they come.

    Args:
        rules: the fact ``category_rules`` of a recording; empty where it was not imported from a snapshot.
    """
    peak = sum(rule["peak_bytes"] for rule in rules)
    lines = [f"{'At the peak':>11} {'':>7} {'Blocks':>9}  Named by rule"] if rules else []
    for rule in rules:
        share = f"{rule['peak_bytes'] / peak:.1%}" if peak else ""
        lines.append(f"{format_bytes(rule['peak_bytes']):>11} {share:>7} {rule['num_blocks']:>9,}  {rule['rule']}")
    return lines

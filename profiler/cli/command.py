"""What the commands share: how one is declared, how it ends, and how a recording's facts are printed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from profiler.errors import CaptureUnavailable, StorageError
from profiler.units import exact_bytes, format_bytes

DONE = 0
BAD_INPUT = 2
"""What was asked for is not possible, or a file cannot be read or written."""
FAILED_RUN = 3
"""The run was started, or would have been, and gave no result: it failed, hit a limit, or this machine cannot measure it."""
DIFFERS = 4
"""What was asked for was done, and a difference is larger, or a need above, what is allowed."""
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Complains in one sentence, as all else here does."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where the options are listed, and exit."""
        print(f"headroom: {message}. `{self.prog} --help` lists what is allowed.", file=sys.stderr)
        sys.exit(BAD_INPUT)


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What a command is added to."""


def add_command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str) -> Parser:
    """Declare a command and return its parser.

    Args:
        commands: where.
        name: what users type.
        run: does it and returns the exit code.
        text: one line of help, in lower case and without a full stop.
    """
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)
    return command


def show_progress(text: str = "") -> None:
    """Put a text in the place of the last one, for whoever sits at a terminal; without text the line is cleared."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def require(library: str, command: str) -> None:
    """Refuse a command whose library is not installed, as where recordings are only read.

    Raises:
        CaptureUnavailable: it is not installed.
    """
    if importlib.util.find_spec(library) is None:
        raise CaptureUnavailable(
            f"`{command}` needs {library}, which is not installed for {sys.executable}."
            f" Install it (pip install {library}), or use the Python that has it; `show` works without."
        )


def output_path(path: Path, suffix: str = "") -> Path:
    """Return the path of a file to write, with its suffix.

    Raises:
        StorageError: it names a folder.
    """
    named = path if not path.name or path.name.endswith(suffix) else path.with_name(path.name + suffix)
    if named.is_dir():
        raise StorageError(f"{named} cannot be written: it is a folder. Nothing was run; choose another --out.")
    return named


def print_json(data: Any) -> None:
    """Print plain data."""
    print(json.dumps(data, indent=1))


def print_summary(summary: dict[str, Any], message: str = "") -> None:
    """Print what `summarize` says in words, and the recording's path where ``summary`` has one."""
    print(f"{summary['title']}  [{summary['provenance']}]")
    if message:
        print(message)
    peak, at = summary["peak_allocated_bytes"], summary["peak_at"]
    if at is not None:
        print(f"Peak allocated {format_bytes(peak)} ({exact_bytes(peak)}), step {at['step']}, {at['phase']}")
        for name, num_bytes in sorted(summary["categories_at_peak"].items(), key=lambda item: -item[1]):
            share = f"{num_bytes / peak:.1%}" if peak else ""
            print(f"  {name.replace('_', ' ').lower():<20} {format_bytes(num_bytes):>10} {share:>7}")
    for warning in summary["warnings"]:
        print(f"Note: {warning}")
    if "path" in summary:
        print(f"Recording: {summary['path']}")

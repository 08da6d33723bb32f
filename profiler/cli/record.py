"""``record``: a training script of the user's own, recorded."""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
from pathlib import Path

from profiler.analysis.summary import summarize
from profiler.cli.command import DONE, FAILED_RUN, INTERRUPTED, Commands, add_command, print_json, print_summary, require
from profiler.storage import SUFFIX, read_recording


def add(commands: Commands) -> None:
    """Declare the command."""
    record = add_command(commands, "record", _run, "run a training script of your own and record its memory")
    record.add_argument("--out", type=Path, help="the recording's file; by default the script's name, in the current folder")
    record.add_argument("script", type=Path, help="a Python script")
    record.add_argument("arguments", nargs=argparse.REMAINDER, help="the script's own arguments")
    record.epilog = (
        "A script that raises, or exits with anything but 0, shows its own message, leaves a recording that says what was alive, and"
        " ends this command with exit code 3. With --json, what the script prints goes to stderr."
    )


def _run(options: argparse.Namespace) -> int:
    require("torch", "record")
    from profiler.capture.script import record_script

    out = options.out or Path(options.script.stem + SUFFIX)
    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):
        run = record_script(options.script, options.arguments, out)
    code = _how_it_ended(run.error)
    summary = summarize(read_recording(run.path)) | {"path": str(run.path)}
    print_json(summary) if options.json else print_summary(summary)
    return code


def _how_it_ended(error: BaseException | None) -> int:
    """Show what a script raised as Python would, and return the exit code."""
    if error is None:
        return DONE
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    elif isinstance(error.code, str):
        print(error.code, file=sys.stderr)
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED_RUN

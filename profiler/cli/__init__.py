"""The command line: the same engines, store and figures as the pages, as text or JSON.

One module a command, each with `add`, which declares it. What is printed with ``--json`` is one JSON value on stdout and nothing else;
messages go to stderr. Exit codes: `profiler.cli.command`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from profiler import __version__
from profiler.cli import (
    compare,
    compress,
    diff,
    doctor,
    explain,
    export,
    import_file,
    models,
    profile,
    record,
    replay,
    show,
    simulate,
    toggles,
    validate,
)
from profiler.cli.command import BAD_INPUT, DONE, FAILED_RUN, INTERRUPTED, Parser
from profiler.errors import CaptureUnavailable, HeadroomError, JobFailed

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what Headroom refuses is one line on stderr."""
    options = _parser().parse_args(sys.argv[1:] if arguments is None else list(arguments))
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except HeadroomError as error:
        print(f"headroom: {error}", file=sys.stderr)
        return FAILED_RUN if isinstance(error, (JobFailed, CaptureUnavailable)) else BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has enough; what is still to be written goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    return code


def _parser() -> Parser:
    parser = Parser(
        prog="python -m profiler",
        description="Headroom: see where a language model's memory goes, and what each optimization really gives back.",
        epilog="Exit codes: 0 done, 2 bad input, 3 a run that failed, 4 a difference that is too large, 130 an interrupt.",
    )
    parser.add_argument("--version", action="version", version=f"headroom {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    planning = (models, toggles, profile, simulate, compare, compress)
    for module in (*planning, record, show, import_file, replay, explain, diff, export, validate, doctor):
        module.add(commands)
    return parser

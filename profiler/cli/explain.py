"""``explain``: what an out-of-memory message, or a memory summary, says in plain words."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from profiler.cli.command import DONE, Commands, add_command, print_json
from profiler.cli.job import named_model
from profiler.errors import FormatError, StorageError
from profiler.formats.redact import MAX_CHARS
from profiler.formats.triage import Triage, triage
from profiler.spec import Workload

_STDIN = "-"


def add(commands: Commands) -> None:
    """Declare the command."""
    command = add_command(commands, "explain", _run, "explain an out-of-memory message or a memory summary, as Markdown without your paths")
    text = command.add_mutually_exclusive_group(required=True)
    text.add_argument("file", nargs="?", type=Path, help=f"a text file, such as a log; {_STDIN} reads what is piped in")
    text.add_argument("--text", help="the message itself")
    command.add_argument("--model", help="what ran, to name the tensor that was asked for: a name that `models` lists, or a config.json")
    command.add_argument("--batch", type=int, metavar="N", help="sequences a step, with --model")
    command.add_argument("--seq", type=int, metavar="N", help="tokens a sequence, with --model")
    command.add_argument("--hide", action="append", default=[], metavar="WORD", help="a further word to leave out; repeatable")
    command.epilog = "Read the Markdown before you publish it: what no rule knows as private stays in it."


def _run(options: argparse.Namespace) -> int:
    text = options.text if options.text is not None else _text(options.file)
    given = {name: value for name in ("batch", "seq") if (value := getattr(options, name)) is not None}
    found = triage(
        text,
        named_model(options.model) if options.model else None,
        Workload(**given) if given else None,
        names=tuple(options.hide),
    )
    print_json(plain(found)) if options.json else print(found.to_markdown(), end="")
    return DONE


def plain(found: Triage) -> dict[str, object]:
    """Return an explanation as plain data, its Markdown included."""
    return {
        "verdict": found.verdict,
        "explanation": list(found.explanation),
        "suggestions": list(found.suggestions),
        "tensors": [str(tensor) for tensor in found.tensors],
        "facts": dataclasses.asdict(found.facts),
        "markdown": found.to_markdown(),
    }


def _text(path: Path) -> str:
    """Return the end of a text file, where the message is, as far as it is read."""
    try:
        if str(path) == _STDIN:
            return sys.stdin.read()[-MAX_CHARS:]
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - MAX_CHARS, 0))
            data = file.read(MAX_CHARS)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from error
    if b"\0" in data:
        raise FormatError(f"{path.name} is not a text file. Choose the log that holds the message; snapshots are read by `replay`.")
    return data.decode("utf-8", errors="replace")

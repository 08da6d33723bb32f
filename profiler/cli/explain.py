"""``explain``: what an out-of-memory message, a memory summary, or a recording of one says in plain words."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from profiler.analysis.recorded_triage import triage_recording
from profiler.cli.command import DONE, Commands, add_command, print_json, show_progress
from profiler.cli.job import named_model
from profiler.cli.reading import FILE_HELP, read_file
from profiler.errors import SpecError, StorageError
from profiler.formats.opening import SNAPSHOT_SUFFIXES
from profiler.formats.redact import MAX_CHARS
from profiler.formats.triage import Triage, triage
from profiler.spec import Model, Workload
from profiler.storage import PARTIAL_SUFFIX, SUFFIX

_STDIN = "-"
_RECORDINGS = (SUFFIX, PARTIAL_SUFFIX, *SNAPSHOT_SUFFIXES)
"""Files that are no text whatever they hold; others are where a byte of zero is in them."""


def add(commands: Commands) -> None:
    """Declare the command."""
    command = add_command(commands, "explain", _run, "explain why memory ran out, as Markdown without your paths")
    text = command.add_mutually_exclusive_group(required=True)
    text.add_argument(
        "file", nargs="?", type=Path, help=f"a text file, such as a log, or {FILE_HELP}; {_STDIN} reads the text that is piped in"
    )
    text.add_argument("--text", help="the message itself")
    command.add_argument("--model", help="what ran, to name the tensor that was asked for: a name that `models` lists, or a config.json")
    command.add_argument("--batch", type=int, metavar="N", help="sequences a step, with --model")
    command.add_argument("--seq", type=int, metavar="N", help="tokens a sequence, with --model")
    command.add_argument("--hide", action="append", default=[], metavar="WORD", help="a further word to leave out; repeatable")
    command.epilog = "Read the Markdown before you publish it: what no rule knows as private stays in it."


def _run(options: argparse.Namespace) -> int:
    about = (named_model(options.model) if options.model else None, _workload(options.batch, options.seq))
    text = options.text if options.text is not None else _text(options.file)
    names = tuple(options.hide)
    found = _of_recording(options.file, *about, names) if text is None else triage(text, *about, names=names)
    print_json(plain(found)) if options.json else print(found.to_markdown(), end="")
    return DONE


def _workload(batch: int | None, seq: int | None) -> Workload | None:
    """Return what ran; nothing is named from a length that nobody gave."""
    if batch is None and seq is None:
        return None
    if batch is None or seq is None:
        raise SpecError("--batch and --seq say together what ran. Give both, or neither.")
    return Workload(batch=batch, seq=seq)


def _of_recording(path: Path, model: Model | None, workload: Workload | None, names: tuple[str, ...]) -> Triage:
    recording = read_file(path)
    show_progress("Trying other settings")
    try:
        return triage_recording(recording, model, workload, names=names)
    finally:
        show_progress()


def plain(found: Triage) -> dict[str, object]:
    """Return an explanation as plain data, its Markdown included."""
    return {
        "verdict": found.verdict,
        "explanation": list(found.explanation),
        "suggestions": list(found.suggestions),
        "tensors": [str(tensor) for tensor in found.tensors],
        "facts": dataclasses.asdict(found.facts),
        "alive": {title: dict(held) for title, held in found.alive.items()},
        "markdown": found.to_markdown(),
    }


def _text(path: Path) -> str | None:
    """Return the end of a text file, where the message is, as far as it is read; None for what is a recording or a snapshot."""
    if str(path) == _STDIN:
        return sys.stdin.read()[-MAX_CHARS:]
    if path.is_dir() or path.suffix.lower() in _RECORDINGS:
        return None
    try:
        with path.open("rb") as file:
            first = file.read(MAX_CHARS)
            file.seek(max(path.stat().st_size - MAX_CHARS, 0))
            data = file.read(MAX_CHARS)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from error
    return None if b"\0" in first or b"\0" in data else data.decode("utf-8", errors="replace")

"""A command that measures this machine and prints JSON -> what it printed, kept in the store: measured once, read afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from profiler.compression.result import ResultStore
from profiler.errors import JobFailed
from profiler.jobs.process import how_it_ended, worker_environment
from profiler.spec import canonical_json

_MAX_SECONDS = 300.0
_Found = TypeVar("_Found")


def printed_once(
    command: Sequence[str], parse: Callable[[Any], _Found], *, name: str, parts: Sequence[str], what: str, home: Path | str | None = None
) -> _Found:
    """Return what a command says, some seconds the first time, a file's reading afterwards.

    Args:
        command: prints one JSON value.
        parse: turns that value into facts; raises ValueError, TypeError or KeyError where it is something else.
        name: of the kept file, before its key.
        parts: what the facts depend on, such as the machine and versions; they are the key.
        what: is measured, as a sentence begins: ``The times of sparse products``.
        home: where it is kept; by default ``$HEADROOM_HOME``, else ``.headroom``.

    Raises:
        JobFailed: it could not be measured.
    """
    kept = kept_path(name, parts, home)
    try:
        return parse(json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError):
        text = _printed(command, what)
    try:
        found = parse(json.loads(text))
    except (ValueError, TypeError, KeyError):
        raise JobFailed(f"{what} could not be measured: the worker printed something else. Try again.") from None
    _keep(kept, text)
    return found


def kept_path(name: str, parts: Sequence[str], home: Path | str | None = None) -> Path:
    """Return where facts with this name and these parts of a key are kept, whether they are there or not."""
    return ResultStore(home).folder / f"{name}-{hashlib.sha256(canonical_json(list(parts)).encode()).hexdigest()[:16]}.txt"


def _printed(command: Sequence[str], what: str) -> str:
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=_MAX_SECONDS, env=worker_environment(), check=False)
    except subprocess.TimeoutExpired:
        raise JobFailed(f"{what} took more than {_MAX_SECONDS:.0f} s. Try again when the machine is less busy.") from None
    if done.returncode:
        words = (done.stderr.strip().splitlines() or [""])[-1][:400]
        raise JobFailed(f"{what} could not be measured. {how_it_ended(done.returncode, words)}")
    return done.stdout


def _keep(path: Path, text: str) -> None:
    """Write it for the next time; on a read-only or full disk it is measured again instead."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        return

"""Call stacks -> numbers: each one is written once."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from profiler.recording import STACKS

_MAX_STACKS = 50_000
"""A program that makes more different ones, by recursion or generated code, has the later ones unknown."""
_MAX_FRAMES = 64
_LIBRARY = re.compile(r".*/(?:site-packages|dist-packages|lib/python3\.\d+)/")


class Stacks:
    """The call stacks of one recording."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._unwritten: list[str] = []
        self._seen: dict[tuple[int, ...], tuple[int | None, list[dict[str, Any]]]] = {}
        """By the identities of its frames, which the stacks of one snapshot share: making the text again would cost more than all else.
        The frames are kept beside the number, so that no other ones can have their identities."""

    def number(self, frames: list[dict[str, Any]]) -> int | None:
        """Return the number of a stack as the CUDA allocator's history gives it, innermost first; None where it is unknown."""
        if not frames:
            return None
        key = tuple(map(id, frames))
        if key not in self._seen:
            self._seen[key] = (self._number(frames), frames)
        return self._seen[key][0]

    def _number(self, frames: list[dict[str, Any]]) -> int | None:
        text = "\n".join(f"{_shown(frame['filename'])}:{frame['line']}:{frame['name']}" for frame in frames[:_MAX_FRAMES])
        known = self._numbers.get(text)
        if known is None and len(self._numbers) < _MAX_STACKS:
            known = self._numbers[text] = len(self._numbers)
            self._unwritten.append(text)
        return known

    def take(self) -> pa.Table:
        """Return the stacks that are new since the last call, as part of the recording's stacks."""
        texts, self._unwritten = self._unwritten, []
        self._seen.clear()
        first = len(self._numbers) - len(texts)
        return pa.table({"stack": range(first, first + len(texts)), "frames": texts}, schema=STACKS)


@lru_cache(maxsize=10_000)
def _shown(filename: str) -> str:
    """Return a file's name without what tells whose machine it was: recordings are shared."""
    path = filename.replace("\\", "/")
    library = _LIBRARY.match(path)
    if library:
        return path[library.end() :]
    here = Path.cwd().as_posix() + "/"
    if path.startswith(here):
        return path[len(here) :]
    return "/".join(path.split("/")[-2:])

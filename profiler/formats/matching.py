"""Patterns over the frames of a snapshot -> which of its stacks they match."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from profiler.formats.snapshot import Snapshot

Array = np.ndarray[Any, Any]


class StackMatcher:
    """Tells which stacks of one snapshot hold a frame.

    Each answer has a truth a stack, and one more at the end that stands for no stack. Frames are matched as ``file:function`` with ``/``
    between folders; the many lines of one function are matched once.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._frames, self._stacks = snapshot.frames, snapshot.stacks
        self._found: dict[re.Pattern[str], Array] = {}

    def matches(self, pattern: re.Pattern[str]) -> Array:
        """Return the stacks of which a frame matches."""
        if pattern not in self._found:
            self._found[pattern] = self._with_any(bool(pattern.search(name)) for name in self._names[0])
        return self._found[pattern]

    @cached_property
    def python(self) -> Array:
        """The stacks that Python made."""
        return self._with_any(name.rpartition(":")[0].endswith(".py") or name.startswith("<") for name in self._names[0])

    def _with_any(self, chosen: Iterable[bool]) -> Array:
        """Return the stacks of which any frame has a name that is chosen."""
        result = np.zeros(len(self._stacks) + 1, bool)
        if self._stacks:
            result[:-1] = np.logical_or.reduceat(np.fromiter(chosen, bool)[self._name_of_call], self._first_call)
        return result

    @cached_property
    def _names(self) -> tuple[list[str], Array]:
        """What patterns are matched against, and for each frame which of them is its own."""
        numbers: dict[str, int] = {}
        of_frame = [numbers.setdefault(f"{frame.file.replace(chr(92), '/')}:{frame.function}", len(numbers)) for frame in self._frames]
        return list(numbers), np.array(of_frame, np.int64)

    @cached_property
    def _name_of_call(self) -> Array:
        """The names of the frames of all stacks, one stack after the other."""
        return self._names[1][np.fromiter(chain.from_iterable(self._stacks), np.int64)]

    @cached_property
    def _first_call(self) -> Array:
        """For each stack, the place of its first frame among those of all."""
        return np.cumsum([0, *map(len, self._stacks[:-1])])

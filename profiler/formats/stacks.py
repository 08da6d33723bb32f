"""Lists of frames, one an event -> a table of frames and a table of stacks, each kept once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from profiler.errors import FormatError

MAX_FRAMES = 4_096
"""Of one stack; deeper ones are cut at their outer end."""
MAX_TEXT = 2_000
"""Characters of a file's or function's name; C++ templates are long."""
_CROWDED = 8
NO_STACK = -1


class Frame(NamedTuple):
    """One call."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.function}"


class Stacks:
    """The call stacks of a snapshot, innermost frame first.

    Args:
        wanted: whether to keep any; without, every event has `NO_STACK`.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self.wanted = wanted
        self.frames: list[Frame] = []
        self.stacks: list[tuple[int, ...]] = []
        """For each stack the places of its frames in `frames`."""
        self._frame_numbers: dict[Frame, int] = {}
        self._stack_numbers: dict[tuple[int, ...], int] = {}
        # Events of one place share their frame objects but not always the list. Hashing sixty frames costs more than all else, so lists are
        # looked up by a few of their frames and then compared, which for shared frames is sixty comparisons of pointers.
        self._seen: dict[tuple[int, ...], list[tuple[list[Any], int]]] = {}
        self._frames_seen: dict[int, int] = {}
        """Numbers by identity; the frames are kept, so the identities are."""
        self._kept: list[Any] = []

    def numbers(self, column: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return the stack's number for each event's ``frames``; `NO_STACK` for those without.

        Raises:
            FormatError: frames are not lists of file, line and function.
        """
        if not self.wanted:
            return np.full(len(column), NO_STACK, np.int32)
        numbers: list[int] = []
        last: Any = None
        number = NO_STACK
        try:
            for frames in column:
                if frames is not last:
                    last, number = frames, NO_STACK
                    if frames:
                        length = len(frames)
                        key = (length, id(frames[length >> 1]), id(frames[length >> 2]), id(frames[length >> 3]))
                        for known, number in self._seen.get(key, ()):  # noqa: B007  # the number is what is looked for
                            if known == frames:
                                break
                        else:
                            number = self._new_stack(frames, key)
                numbers.append(number)
        except (TypeError, KeyError, RecursionError):
            raise FormatError("frames are not a list. Record the snapshot again.") from None
        return np.array(numbers, np.int32)

    def number(self, frames: Any) -> int:
        """Return the number of one stack; see `numbers`."""
        return int(self.numbers((frames,))[0]) if self.wanted else NO_STACK

    def text(self, stack: int) -> str:
        """Return a stack as lines ``file:line:function``."""
        return "\n".join(str(self.frames[frame]) for frame in self.stacks[stack])

    def _new_stack(self, frames: Any, key: tuple[int, ...]) -> int:
        """Return the number of a list that was not seen before."""
        if type(frames) is not list:
            raise FormatError("frames are not a list. Record the snapshot again.")
        candidates = self._seen.setdefault(key, [])
        calls = frames[:MAX_FRAMES]
        try:
            numbers = tuple(map(self._frames_seen.__getitem__, map(id, calls)))
        except KeyError:
            numbers = tuple(map(self._frame, calls))
        number = self._stack_numbers.setdefault(numbers, len(self.stacks))
        if number == len(self.stacks):
            self.stacks.append(numbers)
        if len(candidates) < _CROWDED:
            candidates.append((frames, number))
        return number

    def forget(self) -> None:
        """Drop what only serves to recognize lists of the file that was read."""
        self._seen.clear()
        self._frames_seen.clear()
        self._kept.clear()

    def _frame(self, frame: Any) -> int:
        if (number := self._frames_seen.get(id(frame))) is None:
            number = self._frames_seen[id(frame)] = self._new_frame(frame)
            self._kept.append(frame)
        return number

    def _new_frame(self, frame: Any) -> int:
        if type(frame) is not dict:
            raise FormatError("a frame is not a dictionary. Record the snapshot again.")
        file, line, function = frame.get("filename"), frame.get("line"), frame.get("name")
        if type(file) is not str or type(line) is not int or type(function) is not str or not 0 <= line < 2**31:
            raise FormatError("a frame has no file, line or function. Record the snapshot again.")
        key = Frame(_one_line(file), line, _one_line(function))
        number = self._frame_numbers.setdefault(key, len(self.frames))
        if number == len(self.frames):
            self.frames.append(key)
        return number


def _one_line(text: str) -> str:
    """Return a name that cannot break the lines of a stack's text."""
    text = text[:MAX_TEXT]
    return text if text.isprintable() else "".join(character if character.isprintable() else "?" for character in text)

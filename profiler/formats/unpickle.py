"""A pickle of plain data -> dicts, lists, texts and numbers, with nothing imported and nothing called.

The C unpickler does the work; what could reach code is refused: globals, persistent ids, and the extension codes of ``copyreg``. What is
left on its stack is plain data, none of which can be called. Memory that a hostile file makes it take is bounded by the worker
(`profiler.formats.worker`), not here.
"""

from __future__ import annotations

import copyreg
import gc
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, cast

from profiler.errors import FormatError
from profiler.formats.containers import Source

_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
    SystemError,
)
"""What the C unpickler raises on bytes that are no pickle."""


class PlainUnpickler(pickle.Unpickler):
    """Refuses whatever is not plain data, naming what the file asked for."""

    def __init__(self, source: Source, what: str) -> None:
        super().__init__(source, buffers=())
        self._what = what

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse an import."""
        raise FormatError(
            f"{self._what} tries to import {_bounded(module)}.{_bounded(name)}; a CUDA memory snapshot holds plain data only. It was not "
            "opened and nothing in it ran. Do not open it with other tools."
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse a reference to something outside the file."""
        raise FormatError(
            f"{self._what} refers to an object outside of it (persistent id); a CUDA memory snapshot holds plain data only. "
            "It was not opened."
        )

    def lists(self) -> list[list[Any]]:
        """Return the lists that were begun so far, in the order of the file."""
        memo = cast("dict[int, Any]", self.memo.copy())
        return [found for found in memo.values() if type(found) is list]

    def plain(self) -> Any:
        """Return the data.

        Raises:
            FormatError: the file asks for an import, is no pickle, or takes more memory than there is.
        """
        # A code that somebody used before comes out of this cache without find_class; it is only a cache.
        copyreg.clear_extension_cache()
        try:
            return self.load()
        except MemoryError as error:
            raise FormatError(f"{self._what} takes more memory than it may; no snapshot of its size does. It is not opened.") from error
        except _DAMAGE as error:
            raise FormatError(
                f"{self._what} is not a CUDA memory snapshot, or it is damaged ({_bounded(str(error))}). Choose the pickle that "
                "torch.cuda.memory._dump_snapshot wrote."
            ) from error


@contextmanager
def no_collection() -> Iterator[None]:
    """Switch the cycle collector off: it would walk millions of new objects again and again and find nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _bounded(text: str) -> str:
    """Return text of the file for a message: one line, printable, at most 100 characters."""
    line = "".join(character if character.isprintable() else "?" for character in text[:101])
    return f"{line[:100]}..." if len(text) > 100 else line

"""A file as people share it (a pickle, the same gzipped, or inside a memory_viz page) -> the stream of its pickle.

Every byte handed out is counted against what the file holds, so that a length written in the file allocates nothing. What a gzip holds is
counted by unpacking it once, a piece at a time: what it says of itself is not believed.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

from profiler.errors import FormatError, StorageError
from profiler.units import GIB

_GZIP = b"\x1f\x8b"
_BUFFER_BYTES = 2**17
_MAX_EXPANSION = 60
"""Real snapshots shrink 10 to 30 times; gzip can claim 1,000."""
_MAX_EXPANDED_BYTES = 16 * GIB
_BASE64 = re.compile(rb'"base64":\s*"([A-Za-z0-9+/=\s\\]*)"')


@dataclass(frozen=True)
class Container:
    """What a file turned out to be."""

    kind: str
    """pickle, gzip or html."""
    payload_bytes: int
    """The most bytes of pickle that it may hold; exact but for a page, which is larger than its pickle."""


class Source:
    """A stream for the unpickler that knows how many bytes are left and tells how far it is.

    Args:
        stream: what to read.
        num_bytes: how many bytes it can have at most.
        on_read: called before each read from ``stream``, with the bytes handed out so far.
        what: how messages call the file.
    """

    def __init__(self, stream: IO[bytes], num_bytes: int, on_read: Callable[[int], None], what: str) -> None:
        self._stream = cast(Any, stream)
        self._left = num_bytes
        self._read = 0
        self._on_read, self._what = on_read, what

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer at the end."""
        self._before(size)
        return self._after(self._stream.read(size))

    def readline(self) -> bytes:
        """Return the next line."""
        self._before(0)
        return self._after(self._stream.readline(self._left + 1))

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` and return how many bytes were there."""
        try:
            self._before(len(buffer))
        except FormatError:
            buffer.release()  # the unpickler frees the memory behind it, which must not be shared then
            raise
        count: int = self._stream.readinto(buffer)
        self._count(count)
        return count

    def peek(self, size: int) -> bytes:
        """Return some of the next bytes and leave them there."""
        self._on_read(self._read)
        data: bytes = self._stream.peek(min(size, _BUFFER_BYTES))
        return data

    def _before(self, size: int) -> None:
        self._on_read(self._read)
        if size > self._left:
            raise FormatError(
                f"{self._what} is truncated or damaged: at byte {self._read:,} it announces {size:,} bytes more, and at most "
                f"{self._left:,} are there. Copy it again from its source."
            )

    def _after(self, data: bytes) -> bytes:
        self._count(len(data))
        return data

    def _count(self, count: int) -> None:
        self._left -= count
        self._read += count
        if self._left < 0:
            raise _too_large(self._what, self._read)


def inspect(path: Path) -> Container:
    """Return what a file is and how much it holds; a gzip is unpacked once for it, at some 400 MiB a second.

    Raises:
        StorageError: it cannot be read.
        FormatError: it is empty, or a gzip that is damaged or unpacks to more than any snapshot of its size.
    """
    try:
        with path.open("rb") as file:
            start = file.read(256)
            status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not start:
        raise FormatError(f"{path.name} is empty. Choose the file that torch.cuda.memory._dump_snapshot wrote.")
    if start.startswith(_GZIP):
        return Container("gzip", _unpacked_bytes(path, status.st_size, status.st_mtime_ns))
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return Container("html", status.st_size)
    return Container("pickle", status.st_size)


@lru_cache(maxsize=8)
def _unpacked_bytes(path: Path, num_bytes: int, _changed_ns: int) -> int:
    """Return what a gzip of ``num_bytes`` unpacks to, holding only a piece of it; remembered until the file changes."""
    most, count = min(num_bytes * _MAX_EXPANSION, _MAX_EXPANDED_BYTES), 0
    with _damage_in_words(path), gzip.open(path) as unpacked:
        while piece := unpacked.read(_BUFFER_BYTES):
            count += len(piece)
            if count > most:
                raise _too_large(path.name, count)
    return count


@contextmanager
def open_pickle(path: Path, on_read: Callable[[int], None]) -> Iterator[Source]:
    """Open the pickle in a file.

    Args:
        path: a pickle, the same gzipped, or a page that `torch.cuda._memory_viz` made.
        on_read: called before each read with the bytes of pickle handed out so far.

    Raises:
        StorageError: the file cannot be read.
        FormatError: it is empty, damaged, or a page without a snapshot.
    """
    container = inspect(path)
    with _damage_in_words(path), path.open("rb", buffering=_BUFFER_BYTES) as file:
        if container.kind == "gzip":
            with gzip.open(file) as unpacked:
                yield Source(cast(IO[bytes], unpacked), container.payload_bytes, on_read, path.name)
        elif container.kind == "html":
            payload = _embedded(file.read(), path.name)
            yield Source(io.BufferedReader(io.BytesIO(payload), _BUFFER_BYTES), len(payload), on_read, path.name)
        else:
            yield Source(file, container.payload_bytes, on_read, path.name)


@contextmanager
def _damage_in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(f"{path.name} is truncated or damaged ({error}). Copy it again from its source.") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _embedded(page: bytes, name: str) -> bytes:
    """Return the pickle inside a memory_viz page."""
    match = _BASE64.search(page)
    if match is None:
        raise FormatError(f"{name} is a web page without a snapshot in it. Choose a page that `_memory_viz.py trace_plot` wrote.")
    try:
        return base64.b64decode(match[1].replace(b"\\/", b"/"))
    except binascii.Error as error:
        raise FormatError(f"{name}: the snapshot inside the page is damaged ({error}). Save the page again.") from error


def _too_large(name: str, count: int) -> FormatError:
    return FormatError(f"{name} unpacks to at least {count:,} bytes, which no snapshot of its size does. It is not opened.")


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be read: {error.strerror or error}. Check the path and its permissions.")

"""A path that somebody names -> a recording: a recording file, another tool's snapshot, or a folder with one snapshot a rank.

Files of other tools are only ever read by `profiler.formats.worker`.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import FormatError, StorageError
from profiler.formats.progress import part_of
from profiler.formats.ranks import merge_ranks
from profiler.formats.worker import read_in_worker
from profiler.recording import Recording
from profiler.storage import PARTIAL_SUFFIX, SUFFIX, RunStore, keeps_its_id, not_written, read_recording, write_recording

SNAPSHOT_SUFFIXES = (".pickle", ".pkl", ".html", ".gz")
"""How snapshots are called; a file that is named by itself may be called anything."""
_ZIP = b"PK"
_MAX_RANKS = 1_024
_RANK = re.compile(r"rank[-_. ]?(\d{1,5})", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the user says about a snapshot that the snapshot does not say itself."""

    parameter_bytes: Sequence[int] = ()
    """Sizes of the model's parameters, one each; see `profiler.formats.convert.to_recording`."""
    rules: Path | None = None
    """A file of category rules that come before Headroom's own."""


def open_file(path: Path, reading: Reading | None = None, progress: Callable[[float], None] | None = None) -> Recording:
    """Return the recording in a file or folder of any kind that Headroom reads; nothing is kept.

    Args:
        path: a ``.headroom`` file, a ``.partial`` folder, a CUDA snapshot (pickle, gzipped, or memory_viz page), or a folder of snapshots.
        reading: about snapshots.
        progress: called now and then with the share that is done, 0 to 1.

    Raises:
        StorageError: it cannot be read.
        FormatError: it is none of these, or damaged.
    """
    if _is_recording(path):
        return read_recording(path)
    with tempfile.TemporaryDirectory(prefix="headroom-") as folder:
        return _converted(path, Path(folder) / f"recording{SUFFIX}", reading or Reading(), progress)


def import_file(path: Path, out: Path, reading: Reading | None = None, progress: Callable[[float], None] | None = None) -> Recording:
    """Return the same as `open_file`, kept as the recording file ``out``.

    Raises:
        StorageError: it cannot be read, or ``out`` not written.
        FormatError: it is nothing that Headroom reads, or damaged.
    """
    if _is_recording(path):
        recording = read_recording(path)
        if path.is_dir() or not keeps_its_id(path):
            return write_recording(recording, out)
        try:
            shutil.copyfile(path, out)  # byte for byte, so that links to it hold
        except OSError as error:
            raise not_written(out, error) from error
        return recording
    return _converted(path, out, reading or Reading(), progress)


def keep_file(path: Path, store: RunStore, reading: Reading | None = None, progress: Callable[[float], None] | None = None) -> Recording:
    """Return the same as `open_file`, kept in a run store under its id.

    Raises:
        StorageError: it cannot be read, or the store not written.
        FormatError: it is nothing that Headroom reads, or damaged.
    """
    return store.keep(lambda out: import_file(path, out, reading, progress))


def snapshots_in(folder: Path) -> dict[int, Path]:
    """Return the snapshots in a folder by rank: the number after ``rank`` in their names, else their places in order.

    Raises:
        StorageError: the folder cannot be read.
        FormatError: it holds none, or several of one rank.
    """
    try:
        found = sorted((path for path in folder.iterdir() if path.suffix.lower() in SNAPSHOT_SUFFIXES and path.is_file()), key=_natural)
    except OSError as error:
        raise StorageError(f"{folder} cannot be read: {error.strerror}. Check the path and its permissions.") from error
    if not 0 < len(found) <= _MAX_RANKS:
        raise FormatError(
            f"{folder.name} holds {len(found):,} snapshots; 1 to {_MAX_RANKS:,} can be opened, one a rank, called "
            f"{', '.join('*' + suffix for suffix in SNAPSHOT_SUFFIXES)}. Choose another folder, or a file."
        )
    ranks = [int(match[1]) if (match := _RANK.search(path.name)) else None for path in found]
    if None in ranks:
        return dict(enumerate(found))
    by_rank = {rank: path for rank, path in zip(ranks, found, strict=True) if rank is not None}
    if len(by_rank) < len(found):
        raise FormatError(f"{folder.name} holds several snapshots of one rank. Leave one file a rank, or open one of them.")
    return by_rank


def _is_recording(path: Path) -> bool:
    """Return whether a path is to be read as Headroom's own: what is damaged is then refused as that."""
    if path.suffix in (SUFFIX, PARTIAL_SUFFIX):
        return True
    if path.is_dir():
        return False
    try:
        if path.exists() and not path.is_file():
            raise StorageError(f"{path} is neither a file nor a folder. Choose a recording, a snapshot, or a folder of snapshots.")
        with path.open("rb") as file:
            return file.read(len(_ZIP)) == _ZIP
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from error


def _converted(path: Path, out: Path, reading: Reading, progress: Callable[[float], None] | None) -> Recording:
    if not path.is_dir():
        return _read(path, out, reading, progress)
    files = snapshots_in(path)
    recordings = {}
    with tempfile.TemporaryDirectory(prefix="headroom-") as folder:
        for place, (rank, file) in enumerate(files.items()):
            part = part_of(progress, place / len(files), (place + 1) / len(files))
            recordings[rank] = _read(file, Path(folder) / f"{rank}{SUFFIX}", reading, part)
    return write_recording(merge_ranks(recordings, f"{path.name} · {len(files)} ranks · CUDA snapshots"), out)


def _read(path: Path, out: Path, reading: Reading, progress: Callable[[float], None] | None) -> Recording:
    return read_in_worker(path, out, progress=progress, parameter_bytes=reading.parameter_bytes, rules=reading.rules)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return the key that puts file 10 behind file 2."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d{1,9})", path.name)]

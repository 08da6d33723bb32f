"""Recordings on disk: the recording file, the recording in progress, and the run store.

A recording file ``NAME.headroom`` is one zip of ``manifest.json`` and Parquet tables (zstd), so pandas or DuckDB can read it alone.
"""

from __future__ import annotations

from pathlib import Path

from profiler.errors import StorageError
from profiler.recording import Recording
from profiler.storage.file import SUFFIX, keeps_its_id, not_written, read_metadata, read_zip, write_recording
from profiler.storage.partial import LABELS, PARTIAL_SUFFIX, RecordingWriter, merge_labels, read_partial, recover
from profiler.storage.store import RunStore, StoredRun

__all__ = [
    "LABELS",
    "PARTIAL_SUFFIX",
    "SUFFIX",
    "RecordingWriter",
    "RunStore",
    "StoredRun",
    "keeps_its_id",
    "merge_labels",
    "not_written",
    "read_metadata",
    "read_recording",
    "recover",
    "write_recording",
]


def read_recording(path: Path | str) -> Recording:
    """Return the recording in a ``.headroom`` file, or what a ``.partial`` folder holds so far.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        FormatError: it is not a recording, is truncated, or of a newer schema.
    """
    path = Path(path)
    if path.is_dir() and path.suffix == PARTIAL_SUFFIX:
        return read_partial(path)
    try:
        with path.open("rb") as file:
            return read_zip(file, path.name)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from error

"""The run store: a folder of recording files, listed and searched."""

from __future__ import annotations

import builtins
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import FormatError, StorageError
from profiler.recording import Metadata, Recording
from profiler.storage.file import SUFFIX, not_written, read_metadata, write_recording
from profiler.storage.partial import PARTIAL_SUFFIX


@dataclass(frozen=True)
class StoredRun:
    """One entry of the run store."""

    path: Path
    metadata: Metadata
    size_bytes: int


class RunStore:
    """A folder of recording files; its listing is rebuilt from the files.

    Args:
        home: the folder; by default ``$HEADROOM_HOME``, else ``.headroom``.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        self.home = Path(home or os.environ.get("HEADROOM_HOME") or ".headroom")
        self.runs = self.home / "runs"
        self._known: dict[Path, tuple[int, StoredRun]] = {}

    def list(self) -> list[StoredRun]:
        """Return the runs, newest first; files that cannot be read are left out."""
        entries = [entry for path in self.runs.glob(f"*{SUFFIX}") if (entry := self._entry(path))]
        return sorted(entries, key=lambda entry: entry.metadata.created, reverse=True)

    def find(self, run_id: str) -> StoredRun | None:
        """Return the run with this id, or None."""
        return next((entry for entry in self.list() if entry.metadata.id == run_id), None)

    def find_key(self, key: str) -> StoredRun | None:
        """Return the newest run of `ended` that was stored under ``key``, or None."""
        return next((entry for entry in self.ended() if entry.metadata.key == key), None)

    def ended(self) -> builtins.list[StoredRun]:
        """Return the runs that came to their end, newest first; what a failed run left is no answer to anything."""
        return [entry for entry in self.list() if entry.metadata.complete and "error" not in entry.metadata.facts]

    def new_path(self, name: str) -> Path:
        """Return the path of a new run's file; the folder is made.

        Raises:
            StorageError: the store is read-only or full.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_written(self.runs, error) from error
        return self.runs / f"{name}{SUFFIX}"

    def add(self, recording: Recording) -> Recording:
        """Store a recording under its content hash and return it with its id.

        Raises:
            StorageError: the store is read-only or full.
        """
        return self.keep(lambda path: write_recording(recording, path))

    def keep(self, write: Callable[[Path], Recording]) -> Recording:
        """Store the file that ``write`` makes under the id of the recording that it returns, and return that.

        Each file is made in a folder of its own and moved once it is whole, so that those who store at the same time do not meet.

        Args:
            write: makes a recording file of the path that it is given.

        Raises:
            StorageError: the store is read-only or full.
        """
        self.new_path("any")  # makes the store's folder, or says why it cannot be
        try:
            with tempfile.TemporaryDirectory(prefix="incoming-", dir=self.home) as folder:
                made = Path(folder) / f"recording{SUFFIX}"
                recording = write(made)
                made.replace(self.new_path(recording.id))
        except OSError as error:
            raise not_written(self.runs, error) from error
        return recording

    def partials(self) -> builtins.list[Path]:
        """Return the folders of recordings in progress."""
        return sorted(self.runs.glob(f"*{PARTIAL_SUFFIX}"))

    def _entry(self, path: Path) -> StoredRun | None:
        try:
            status = path.stat()
            known = self._known.get(path)
            if known is None or known[0] != status.st_mtime_ns:
                known = (status.st_mtime_ns, StoredRun(path, read_metadata(path), status.st_size))
                self._known[path] = known
            return known[1]
        except (StorageError, FormatError, OSError):
            return None

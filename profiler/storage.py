"""Recordings on disk: the recording file, the recording in progress, and the run store.

A recording file ``NAME.headroom`` is one zip of ``manifest.json`` and Parquet tables (zstd), so pandas or DuckDB can read it alone. It
is written under a temporary name, flushed to the disk and renamed, so it is whole or absent. A recording in progress is a folder
``NAME.partial`` with one Parquet part a step; closing it, or `recover` after a kill, makes the file.
"""

from __future__ import annotations

import builtins
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from profiler.errors import FormatError, StorageError
from profiler.recording import SCHEMA_VERSION, TABLES, Metadata, Recording
from profiler.units import GIB, MIB

SUFFIX = ".headroom"
PARTIAL_SUFFIX = ".partial"
_MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 16 * MIB
_MAX_TABLE_BYTES = 4 * GIB
_MAX_ROWS = 20_000_000
"""Some 2,000 training steps; a table of more rows than this would need gigabytes of memory, however small its file is."""
_ROW_GROUP = 262_144

LABELS = pa.schema(
    [
        ("block", pa.int64()),
        ("roles", pa.int32()),
        ("dtype", pa.string()),
        ("shape", pa.string()),
        ("tensor", pa.string()),
    ]
)
"""What became known about a block after its part was written: role bits to add, and names to fill in."""


def read_recording(path: Path | str) -> Recording:
    """Return the recording in a ``.headroom`` file, or what a ``.partial`` folder holds so far.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        FormatError: it is not a recording, is truncated, or of a newer schema.
    """
    path = Path(path)
    if path.is_dir() and path.suffix == PARTIAL_SUFFIX:
        return _read_partial(path)
    try:
        with path.open("rb") as file:
            return _read_zip(file, path.name)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from error


def read_recording_bytes(data: bytes, name: str) -> Recording:
    """Return the recording in an uploaded file's bytes; ``name`` is what messages call it.

    Raises:
        FormatError: it is not a recording, is truncated, or of a newer schema.
    """
    return _read_zip(io.BytesIO(data), name)


def read_metadata(path: Path) -> Metadata:
    """Return only the metadata of a recording file; fast enough for a list of thousands.

    Raises:
        StorageError, FormatError: as `read_recording`.
    """
    try:
        with path.open("rb") as file, _open_zip(file, path.name) as archive:
            return _read_manifest(archive, path.name)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from error


def write_recording(recording: Recording, path: Path | str) -> Recording:
    """Write ``recording`` to ``path`` and return it with its id; the file appears whole or not at all.

    Raises:
        StorageError: the folder is missing, read-only or full.
    """
    path = Path(path)
    with _new_file(path) as file, _ZipWriter(file) as writer:
        for name in TABLES:
            with writer.table(name) as sink:
                sink.write_table(getattr(recording, name), row_group_size=_ROW_GROUP)
        metadata = writer.finish(recording.metadata)
    return replace(recording, metadata=metadata)


def write_recording_bytes(recording: Recording) -> bytes:
    """Return the bytes of the recording file, for a download."""
    buffer = io.BytesIO()
    with _ZipWriter(buffer) as writer:
        for name in TABLES:
            with writer.table(name) as sink:
                sink.write_table(getattr(recording, name), row_group_size=_ROW_GROUP)
        writer.finish(recording.metadata)
    return buffer.getvalue()


class RecordingWriter:
    """A recording in progress: parts go to a folder as they come, `close` makes the file.

    Args:
        path: where the finished file shall be; the folder is ``path`` with ``.partial`` for a suffix.

    Raises:
        StorageError: the folder cannot be made, or the file exists and ``overwrite`` is off.
    """

    def __init__(self, path: Path | str, *, overwrite: bool = True) -> None:
        self.path = Path(path)
        if self.path.suffix != SUFFIX:
            self.path = self.path.with_name(self.path.name + SUFFIX)
        if self.path.exists() and not overwrite:
            raise StorageError(f"{self.path} exists and is kept. Choose another name or remove it first.")
        self.folder = self.path.with_suffix(PARTIAL_SUFFIX)
        self._parts = dict.fromkeys([*TABLES, "labels"], 0)
        try:
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise _not_written(self.folder, error) from error

    def add(self, name: str, part: pa.Table) -> None:
        """Append a part to table ``name`` of `TABLES`, or to ``labels``; empty parts are skipped.

        Raises:
            StorageError: the disk is full or went away.
        """
        if not part.num_rows:
            return
        final = self.folder / f"{name}-{self._parts[name]:06d}.parquet"
        self._parts[name] += 1
        temporary = final.with_suffix(".tmp")
        try:
            pq.write_table(part, temporary, compression="zstd")
            temporary.replace(final)
        except (OSError, pa.ArrowException) as error:
            raise _not_written(final, error) from error

    def describe(self, metadata: Metadata) -> None:
        """Keep ``metadata`` beside the parts, so that a killed run still says what it was."""
        temporary = self.folder / "manifest.tmp"
        try:
            temporary.write_text(json.dumps(metadata.to_json()), encoding="utf-8")
            temporary.replace(self.folder / _MANIFEST)
        except OSError as error:
            raise _not_written(self.folder, error) from error

    def close(self, metadata: Metadata) -> Metadata:
        """Make the file from the parts, remove the folder, and return the metadata with its id.

        Raises:
            StorageError: the disk is full or read-only; the folder with the parts is kept.
        """
        metadata = _assemble(self.folder, self.path, metadata)
        shutil.rmtree(self.folder, ignore_errors=True)
        return metadata


def recover(folder: Path) -> Path:
    """Make the recording file of a ``.partial`` folder whose run was killed; it is marked incomplete.

    Raises:
        FormatError: the folder holds no manifest or a damaged part.
        StorageError: the file cannot be written.
    """
    metadata = _partial_metadata(folder)
    path = folder.with_suffix(SUFFIX)
    _assemble(folder, path, metadata)
    shutil.rmtree(folder, ignore_errors=True)
    return path


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
        """Return the newest complete run that was stored under ``key``, or None."""
        return next((e for e in self.list() if e.metadata.key == key and e.metadata.complete), None)

    def new_path(self, name: str) -> Path:
        """Return the path of a new run's file; the folder is made.

        Raises:
            StorageError: the store is read-only or full.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_written(self.runs, error) from error
        return self.runs / f"{name}{SUFFIX}"

    def add(self, recording: Recording) -> Recording:
        """Store a recording under its content hash and return it with its id.

        Raises:
            StorageError: the store is read-only or full.
        """
        stored = write_recording(recording, self.new_path("incoming"))
        self.new_path("incoming").replace(self.new_path(stored.id))
        return stored

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


class _ZipWriter:
    """Writes the zip, hashing each table, and the manifest last."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._digest = hashlib.sha256()

    def __enter__(self) -> _ZipWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    @contextmanager
    def table(self, name: str) -> Iterator[pq.ParquetWriter]:
        member = zipfile.ZipInfo(f"{name}.parquet", date_time=(1980, 1, 1, 0, 0, 0))
        with self._zip.open(member, "w", force_zip64=True) as stream:
            sink = _HashingSink(stream, self._digest)
            with pq.ParquetWriter(sink, TABLES[name], compression="zstd") as writer:
                yield writer

    def finish(self, metadata: Metadata) -> Metadata:
        without_id = json.dumps(replace(metadata, id="").to_json(), sort_keys=True)
        self._digest.update(without_id.encode())
        metadata = replace(metadata, id=self._digest.hexdigest()[:16])
        manifest = {"headroom": SCHEMA_VERSION, "metadata": metadata.to_json()}
        member = zipfile.ZipInfo(_MANIFEST, date_time=(1980, 1, 1, 0, 0, 0))
        self._zip.writestr(member, json.dumps(manifest, indent=1))
        return metadata


class _HashingSink(io.RawIOBase):
    """Passes bytes on to a stream and into a digest."""

    def __init__(self, stream: IO[bytes], digest: Any) -> None:
        self._stream, self._digest, self._position = stream, digest, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        view = bytes(data)
        self._digest.update(view)
        self._stream.write(view)
        self._position += len(view)
        return len(view)


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that becomes ``path`` only if the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, pa.ArrowException) as error:
        raise _not_written(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _not_written(path: Path, error: Exception) -> StorageError:
    reason = getattr(error, "strerror", None) or str(error)
    return StorageError(f"{path} cannot be written: {reason}. Free space there, or choose another folder (HEADROOM_HOME, --out).")


def _open_zip(file: IO[bytes], name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise FormatError(
            f"{name} is not a Headroom recording, or it is truncated. Choose a {SUFFIX} file that `profile` or `record` wrote."
        ) from None


def _read_manifest(archive: zipfile.ZipFile, name: str) -> Metadata:
    try:
        if archive.getinfo(_MANIFEST).file_size > _MAX_MANIFEST_BYTES:
            raise FormatError(f"{name}: its manifest is larger than any that Headroom writes. The file is not opened.")
        manifest = json.loads(archive.read(_MANIFEST))
        version = manifest["headroom"]
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise FormatError(
                f"{name} has schema {version}, newer than the {SCHEMA_VERSION} that this Headroom reads. Update Headroom to open it."
            )
        return Metadata.from_json(manifest["metadata"])
    except (KeyError, TypeError, ValueError, RecursionError, zipfile.BadZipFile, NotImplementedError) as error:
        raise FormatError(f"{name} is not a Headroom recording: its manifest is missing or damaged ({error}).") from error


def _read_zip(file: IO[bytes], name: str) -> Recording:
    with _open_zip(file, name) as archive:
        metadata = _read_manifest(archive, name)
        tables = {table: _read_table(archive, table, name) for table in TABLES}
    return Recording(metadata=metadata, **tables)


def _read_table(archive: zipfile.ZipFile, table: str, name: str) -> pa.Table:
    schema = TABLES[table]
    try:
        member = archive.getinfo(f"{table}.parquet")
        if member.file_size > _MAX_TABLE_BYTES or member.compress_type != zipfile.ZIP_STORED:
            raise FormatError(f"{name}: table {table} is compressed by the zip or has over {_MAX_TABLE_BYTES:,} bytes. It is not opened.")
        parquet = pq.ParquetFile(pa.BufferReader(archive.read(member)))
        if parquet.metadata.num_rows > _MAX_ROWS:
            raise FormatError(f"{name}: table {table} has {parquet.metadata.num_rows:,} rows. At most {_MAX_ROWS:,} are read.")
        return parquet.read(columns=schema.names).select(schema.names).cast(schema)
    except (KeyError, zipfile.BadZipFile, NotImplementedError, pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(f"{name}: table {table} is missing or damaged ({error}). Record it again or use another copy.") from error


def _parts(folder: Path, table: str) -> list[Path]:
    return sorted(folder.glob(f"{table}-*.parquet"))


def _partial_metadata(folder: Path) -> Metadata:
    try:
        data = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        metadata = Metadata.from_json(data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{folder.name} holds no recording in progress: {error}.") from error
    warning = "The run ended before its recording was closed; what was recorded until then is shown."
    return replace(metadata, complete=False, warnings=[*metadata.warnings, warning])


def _read_partial(folder: Path) -> Recording:
    metadata = _partial_metadata(folder)
    labels = _read_labels(folder)
    tables = {}
    for name, schema in TABLES.items():
        parts = [_read_part(path, schema) for path in _parts(folder, name)]
        if name == "events":
            parts = [labels.apply(part) for part in parts]
        tables[name] = pa.concat_tables(parts).unify_dictionaries() if parts else schema.empty_table()
    return Recording(metadata=metadata, **tables)


def _read_part(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        return pq.read_table(path).select(schema.names).cast(schema)
    except (KeyError, pa.ArrowException, OSError) as error:
        raise FormatError(f"{path.name} is damaged ({error}). Remove it to open the rest.") from error


def _assemble(folder: Path, path: Path, metadata: Metadata) -> Metadata:
    """Stream the parts into the file, table by table, so that memory stays that of one part."""
    labels = _read_labels(folder)
    with _new_file(path) as file, _ZipWriter(file) as writer:
        for name, schema in TABLES.items():
            with writer.table(name) as sink:
                for part_path in _parts(folder, name):
                    part = _read_part(part_path, schema)
                    sink.write_table(labels.apply(part) if name == "events" else part, row_group_size=_ROW_GROUP)
        return writer.finish(metadata)


@dataclass(frozen=True)
class _Labels:
    """Late labels, one row a block, sorted by block."""

    table: pa.Table

    def apply(self, events: pa.Table) -> pa.Table:
        """Return ``events`` with the labels of its blocks on their rows of birth."""
        blocks = self.table["block"].to_numpy()
        born = pc.is_in(events["action"].cast(pa.string()), value_set=pa.array(["alloc", "preexisting"])).to_numpy()
        wanted = events["block"].to_numpy()
        index = np.minimum(np.searchsorted(blocks, wanted), max(len(blocks) - 1, 0))
        hit = born & (blocks[index] == wanted) if len(blocks) else np.zeros(len(wanted), bool)
        if not hit.any():
            return events
        rows = pa.array(index, mask=~hit)
        for name in ("dtype", "shape", "tensor"):
            late = self.table[name].take(rows)
            filled = pc.coalesce(late, events[name].cast(pa.string())).combine_chunks()
            events = events.set_column(events.schema.get_field_index(name), events.schema.field(name), filled.dictionary_encode())
        roles = events["roles"].to_numpy() | np.where(hit, self.table["roles"].to_numpy()[index], 0)
        return events.set_column(events.schema.get_field_index("roles"), "roles", pa.array(roles, pa.int32())).cast(events.schema)


def _read_labels(folder: Path) -> _Labels:
    parts = [_read_part(path, LABELS) for path in _parts(folder, "labels")]
    if not parts:
        return _Labels(LABELS.empty_table())
    return _Labels(merge_labels(pa.concat_tables(parts)))


def merge_labels(labels: pa.Table) -> pa.Table:
    """Return one row a block: the union of its role bits and the first name, shape and dtype that were told."""
    ordered = labels.sort_by("block").combine_chunks()
    blocks = ordered["block"].to_numpy()
    starts = np.flatnonzero(np.r_[True, blocks[1:] != blocks[:-1]])
    roles = np.bitwise_or.reduceat(ordered["roles"].to_numpy(), starts)
    columns: Mapping[str, Any] = {"block": blocks[starts], "roles": roles}
    names = {name: _first_valid(ordered[name], starts) for name in ("dtype", "shape", "tensor")}
    return pa.table({**columns, **names}, schema=LABELS)


def _first_valid(column: pa.ChunkedArray, starts: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Array:
    """Return the first non-null value of each group that begins at ``starts``; null where a group has none."""
    length = len(column)
    positions = np.where(column.is_valid().to_numpy(), np.arange(length), length)
    first = np.minimum.reduceat(positions, starts)
    return column.take(pa.array(first, mask=first == length)).combine_chunks()

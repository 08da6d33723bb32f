"""The recording file: one zip of ``manifest.json`` and Parquet tables, read and written.

The file is written under a temporary name, flushed to the disk and renamed, so it is whole or absent. What is read comes from outside: its
sizes are bounded, and nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from profiler.errors import FormatError, StorageError
from profiler.recording import SCHEMA_VERSION, TABLES, Metadata, Recording
from profiler.units import GIB, MIB

SUFFIX = ".headroom"
MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 16 * MIB
_MAX_TABLE_BYTES = 4 * GIB
_MAX_ROWS = 20_000_000
"""Some 2,000 training steps; a table of more rows than this would need gigabytes of memory, however small its file is."""
_ID_DIGITS = 16
ROW_GROUP = 262_144


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
    with new_file(path) as file, ZipWriter(file) as writer:
        for name in TABLES:
            with writer.table(name) as sink:
                sink.write_table(getattr(recording, name), row_group_size=ROW_GROUP)
        metadata = writer.finish(recording.metadata)
    return replace(recording, metadata=metadata)


class ZipWriter:
    """Writes the zip, hashing each table, and the manifest last."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._digest = hashlib.sha256()

    def __enter__(self) -> ZipWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    @contextmanager
    def table(self, name: str) -> Iterator[pq.ParquetWriter]:
        """Open the member of a table of `TABLES`; what is written to it is hashed."""
        member = zipfile.ZipInfo(f"{name}.parquet", date_time=(1980, 1, 1, 0, 0, 0))
        with self._zip.open(member, "w", force_zip64=True) as stream:
            sink = _HashingSink(stream, self._digest)
            with pq.ParquetWriter(sink, TABLES[name], compression="zstd") as writer:
                yield writer

    def finish(self, metadata: Metadata) -> Metadata:
        """Write the manifest and return the metadata with its id, the hash of all that was written."""
        self._digest.update(_without_id(metadata))
        metadata = replace(metadata, id=self._digest.hexdigest()[:_ID_DIGITS])
        manifest = {"headroom": SCHEMA_VERSION, "metadata": metadata.to_json()}
        member = zipfile.ZipInfo(MANIFEST, date_time=(1980, 1, 1, 0, 0, 0))
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
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that becomes ``path`` only if the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, pa.ArrowException) as error:
        raise not_written(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def keeps_its_id(path: Path) -> bool:
    """Return whether a recording file is as Headroom wrote it: its id is the hash of what it holds.

    Raises:
        StorageError, FormatError: as `read_recording`.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file, _open_zip(file, path.name) as archive:
            metadata = _read_manifest(archive, path.name)
            for name in TABLES:
                digest.update(archive.read(f"{name}.parquet"))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from error
    digest.update(_without_id(metadata))
    return digest.hexdigest()[:_ID_DIGITS] == metadata.id


def _without_id(metadata: Metadata) -> bytes:
    """Return what of the metadata goes into the id."""
    return json.dumps(replace(metadata, id="").to_json(), sort_keys=True).encode()


def not_written(path: Path, error: Exception) -> StorageError:
    """Return the error for a file or folder that cannot be written."""
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
        if archive.getinfo(MANIFEST).file_size > _MAX_MANIFEST_BYTES:
            raise FormatError(f"{name}: its manifest is larger than any that Headroom writes. The file is not opened.")
        manifest = json.loads(archive.read(MANIFEST))
        version = manifest["headroom"]
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise FormatError(
                f"{name} has schema {version}, newer than the {SCHEMA_VERSION} that this Headroom reads. Update Headroom to open it."
            )
        return Metadata.from_json(manifest["metadata"])
    except (KeyError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise FormatError(f"{name} is not a Headroom recording: its manifest is missing or damaged ({error}).") from error


def read_zip(file: IO[bytes], name: str) -> Recording:
    """Return the recording in an open file; ``name`` is what messages call it."""
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
    except (KeyError, zipfile.BadZipFile, RuntimeError, pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(f"{name}: table {table} is missing or damaged ({error}). Record it again or use another copy.") from error

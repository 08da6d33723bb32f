"""A recording in progress: a folder ``NAME.partial`` with one Parquet part a step, and what becomes of it.

Closing it makes the recording file; after a kill, `recover` does. Either way memory stays that of one part.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from profiler.errors import FormatError, StorageError
from profiler.recording import TABLES, Metadata, Recording
from profiler.storage.file import MANIFEST, ROW_GROUP, SUFFIX, ZipWriter, new_file, not_written

PARTIAL_SUFFIX = ".partial"

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
            raise not_written(self.folder, error) from error

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
            raise not_written(final, error) from error

    def describe(self, metadata: Metadata) -> None:
        """Keep ``metadata`` beside the parts, so that a killed run still says what it was."""
        temporary = self.folder / "manifest.tmp"
        try:
            temporary.write_text(json.dumps(metadata.to_json()), encoding="utf-8")
            temporary.replace(self.folder / MANIFEST)
        except OSError as error:
            raise not_written(self.folder, error) from error

    def discard(self) -> None:
        """Remove the folder: nothing was recorded, and nothing is left behind."""
        shutil.rmtree(self.folder, ignore_errors=True)

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


def _parts(folder: Path, table: str) -> list[Path]:
    return sorted(folder.glob(f"{table}-*.parquet"))


def _partial_metadata(folder: Path) -> Metadata:
    try:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        metadata = Metadata.from_json(data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{folder.name} holds no recording in progress: {error}.") from error
    warning = "The run ended before its recording was closed; what was recorded until then is shown."
    return replace(metadata, complete=False, warnings=[*metadata.warnings, warning])


def read_partial(folder: Path) -> Recording:
    """Return what a folder holds so far.

    Raises:
        FormatError: it holds no manifest or a damaged part.
    """
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
    with new_file(path) as file, ZipWriter(file) as writer:
        for name, schema in TABLES.items():
            with writer.table(name) as sink:
                for part_path in _parts(folder, name):
                    part = _read_part(part_path, schema)
                    sink.write_table(labels.apply(part) if name == "events" else part, row_group_size=ROW_GROUP)
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
        named = self.table["tensor"].take(rows).is_valid()
        for name in ("dtype", "shape", "tensor"):
            known, late = events[name].cast(pa.string()), self.table[name].take(rows)
            # What names a tensor knows its shape best; else the first that was seen, since a later one may be a view.
            filled = pc.if_else(named, pc.coalesce(late, known), pc.coalesce(known, late)).combine_chunks()
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

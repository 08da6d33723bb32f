from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler.errors import FormatError, StorageError
from profiler.recording import TABLES, Phase, Recording, Role
from profiler.storage import (
    LABELS,
    RecordingWriter,
    RunStore,
    file,
    keeps_its_id,
    merge_labels,
    read_metadata,
    read_recording,
    recover,
    write_recording,
)
from tests.builders import Tape, metadata, synthetic_recording


@pytest.fixture
def small() -> Recording:
    tape = Tape()
    with tape.step(0), tape.phase(Phase.FORWARD):
        first = tape.alloc(100, roles=Role.SAVED, module="h.0")
        tape.alloc(50)
        tape.free(first)
    return tape.recording(title="small")


def assert_same_tables(first: Recording, second: Recording) -> None:
    for name in TABLES:
        assert getattr(first, name).to_pylist() == getattr(second, name).to_pylist(), name


def test_a_recording_is_the_same_after_writing_and_reading(tmp_path: Path, small: Recording) -> None:
    written = write_recording(small, tmp_path / "a.headroom")
    read = read_recording(tmp_path / "a.headroom")
    assert read.metadata == written.metadata
    assert len(read.id) == 16
    assert_same_tables(read, small)


def test_equal_content_has_equal_ids_and_other_content_another(tmp_path: Path, small: Recording) -> None:
    first = write_recording(small, tmp_path / "a.headroom")
    second = write_recording(small, tmp_path / "b.headroom")
    other = write_recording(synthetic_recording(200, seed=1), tmp_path / "c.headroom")
    assert first.id == second.id != other.id


def test_pandas_alone_reads_the_tables(tmp_path: Path, small: Recording) -> None:
    write_recording(small, tmp_path / "a.headroom")
    with zipfile.ZipFile(tmp_path / "a.headroom") as archive, archive.open("events.parquet") as table:
        assert pq.read_table(table).to_pandas()["requested_bytes"].tolist() == small.events["requested_bytes"].to_pylist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_damaged_file_is_refused_in_a_sentence_or_reads_as_it_was(tmp_path: Path, small: Recording, seed: int) -> None:
    path = tmp_path / "damaged.headroom"
    write_recording(small, path)
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    if chance.random() < 0.3:
        data = data[: chance.randrange(len(data))]
    for _ in range(chance.randrange(1, 4)):
        if data:
            data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(data)
    try:
        read = read_recording(path)
    except FormatError as error:
        assert "damaged.headroom" in str(error)
    else:
        assert read.events.schema.equals(TABLES["events"])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a Headroom recording, or it is truncated"),
        (b"PK\x03\x04 no zip", "is not a Headroom recording"),
        (b"x" * 1000, "Choose a .headroom file"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "foreign.headroom").write_bytes(content)
    with pytest.raises(FormatError, match=sentence):
        read_recording(tmp_path / "foreign.headroom")


def rewrite(path: Path, **members: bytes | None) -> None:
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content |= {name.replace("__", "."): data for name, data in members.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)


def test_a_newer_schema_asks_for_an_update(tmp_path: Path, small: Recording) -> None:
    path = tmp_path / "new.headroom"
    write_recording(small, path)
    rewrite(path, manifest__json=json.dumps({"headroom": 999, "metadata": {}}).encode())
    with pytest.raises(FormatError, match=r"schema 999, newer than the \d+ that this Headroom reads. Update"):
        read_recording(path)


def test_a_missing_table_is_named(tmp_path: Path, small: Recording) -> None:
    path = tmp_path / "lost.headroom"
    write_recording(small, path)
    rewrite(path, marks__parquet=None)
    with pytest.raises(FormatError, match="table marks is missing or damaged"):
        read_recording(path)


def test_a_zip_bomb_and_a_table_of_too_many_rows_are_not_opened(tmp_path: Path, small: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.headroom"
    write_recording(small, path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(FormatError, match="is compressed by the zip"):
        read_recording(path)
    monkeypatch.setattr(file, "_MAX_ROWS", 2)
    write_recording(small, path)
    with pytest.raises(FormatError, match="table events has 3 rows. At most 2 are read"):
        read_recording(path)


@pytest.mark.parametrize("field", ["title", "warnings", "versions", "overhead", "job", "warmup_steps", "provenance"])
def test_a_manifest_with_a_field_of_the_wrong_kind_is_refused(tmp_path: Path, small: Recording, field: str) -> None:
    path = tmp_path / "odd.headroom"
    written = write_recording(small, path)
    manifest = {"headroom": 1, "metadata": {**written.metadata.to_json(), field: [5]}}
    rewrite(path, manifest__json=json.dumps(manifest).encode())
    with pytest.raises(FormatError, match="manifest is missing or damaged"):
        read_metadata(path)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        read_recording(tmp_path / "nothing.headroom")
    with pytest.raises(StorageError, match="cannot be read"):
        read_metadata(tmp_path / "nothing.headroom")


def test_a_full_disk_leaves_no_half_written_file(tmp_path: Path, small: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device. Free space there, or choose another folder"):
        write_recording(small, tmp_path / "full.headroom")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_made_is_said_so(tmp_path: Path, small: Recording) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot be written"):
        RunStore(tmp_path / "home").add(small)


def write_parts(writer: RecordingWriter, recording: Recording) -> None:
    half = recording.events.num_rows // 2
    writer.describe(recording.metadata)
    writer.add("events", recording.events.slice(0, half))
    writer.add("events", recording.events.slice(half))
    writer.add("marks", recording.marks)


def test_parts_become_the_same_recording(tmp_path: Path, small: Recording) -> None:
    writer = RecordingWriter(tmp_path / "run")
    write_parts(writer, small)
    in_progress = read_recording(tmp_path / "run.partial")
    assert in_progress.events.to_pylist() == small.events.to_pylist()
    assert not in_progress.metadata.complete
    metadata_with_id = writer.close(small.metadata)
    finished = read_recording(tmp_path / "run.headroom")
    assert finished.id == metadata_with_id.id
    assert_same_tables(finished, small)
    assert not (tmp_path / "run.partial").exists()


def test_a_file_keeps_its_id_unless_something_in_it_was_changed(tmp_path: Path, small: Recording) -> None:
    path = tmp_path / "a.headroom"
    written = write_recording(small, path)
    assert keeps_its_id(path)
    forged = {**written.metadata.to_json(), "title": "another title"}
    rewrite(path, manifest__json=json.dumps({"headroom": 1, "metadata": forged}).encode())
    assert not keeps_its_id(path)


def test_a_killed_recording_is_recovered_and_marked_incomplete(tmp_path: Path, small: Recording) -> None:
    write_parts(RecordingWriter(tmp_path / "run"), small)
    recovered = read_recording(recover(tmp_path / "run.partial"))
    assert_same_tables(recovered, small)
    assert not recovered.metadata.complete
    assert "ended before its recording was closed" in recovered.metadata.warnings[0]


def test_late_labels_reach_the_block_they_are_about(tmp_path: Path, small: Recording) -> None:
    writer = RecordingWriter(tmp_path / "run")
    write_parts(writer, small)
    block = small.events["block"][1].as_py()
    for roles, name in ((Role.GRADIENT, None), (Role.OPTIMIZER_STATE, "w.exp_avg")):
        row = {"block": [block], "roles": [int(roles)], "dtype": ["float32"], "shape": ["5x5"], "tensor": [name]}
        writer.add("labels", pa.table(row, schema=LABELS))
    writer.close(small.metadata)
    born = read_recording(tmp_path / "run.headroom").events.to_pylist()[1]
    assert born["roles"] == int(Role.GRADIENT | Role.OPTIMIZER_STATE)
    assert (born["dtype"], born["shape"], born["tensor"]) == ("float32", "5x5", "w.exp_avg")


def test_a_late_view_of_a_named_tensor_does_not_change_its_shape(tmp_path: Path) -> None:
    tape = Tape()
    block = tape.alloc(24, roles=Role.PARAMETER, dtype="float32", shape="3x2", tensor="w")
    writer = RecordingWriter(tmp_path / "run")
    writer.add("events", tape.recording().events)
    row = {"block": [block], "roles": [int(Role.SAVED)], "dtype": ["float32"], "shape": ["2x3"], "tensor": [None]}
    writer.add("labels", pa.table(row, schema=LABELS))
    writer.close(metadata())
    (born,) = read_recording(tmp_path / "run.headroom").events.to_pylist()
    assert (born["roles"], born["shape"], born["tensor"]) == (int(Role.PARAMETER | Role.SAVED), "3x2", "w")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 63), st.sampled_from([None, "a", "b"])), min_size=1, max_size=30))
def test_merged_labels_are_the_union_of_roles_and_the_first_name(rows: list[tuple[int, int, str | None]]) -> None:
    table = pa.table(
        {"block": [b for b, _, _ in rows], "roles": [r for _, r, _ in rows], "tensor": [n for _, _, n in rows]}
        | {name: pa.nulls(len(rows), pa.string()) for name in ("dtype", "shape")}
    )
    merged = merge_labels(table.select(LABELS.names).cast(LABELS)).to_pylist()
    for row in merged:
        mine = [(roles, name) for block, roles, name in rows if block == row["block"]]
        union = 0
        for roles, _ in mine:
            union |= roles
        assert row["roles"] == union
        assert row["tensor"] in {name for _, name in mine if name} or (row["tensor"] is None and not any(name for _, name in mine))
    assert [row["block"] for row in merged] == sorted({block for block, _, _ in rows})


def test_the_store_lists_newest_first_and_finds_by_id_and_key(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for day in (1, 2, 3):
        tape = Tape()
        tape.alloc(day)
        recording = Recording(
            metadata=metadata(created=f"2026-01-0{day}T00:00:00+00:00", key=f"k{day % 2}"), events=tape.recording().events
        )
        store.add(recording)
    (tmp_path / "runs" / "junk.headroom").write_bytes(b"junk")
    listed = store.list()
    assert [run.metadata.created[:10] for run in listed] == ["2026-01-03", "2026-01-02", "2026-01-01"]
    assert store.find(listed[1].metadata.id) == listed[1]
    assert store.find("0" * 16) is None
    found = store.find_key("k1")
    assert found is not None
    assert found.metadata.created.startswith("2026-01-03")
    assert store.find_key("other") is None


def test_two_that_store_at_the_same_time_do_not_meet(tmp_path: Path, small: Recording) -> None:
    store, other = RunStore(tmp_path), synthetic_recording(50, seed=1)

    def meanwhile(path: Path) -> Recording:
        written = write_recording(small, path)
        RunStore(tmp_path).add(other)
        return written

    first = store.keep(meanwhile)

    assert {run.path.name for run in store.list()} == {f"{run.metadata.id}.headroom" for run in store.list()}
    assert len(store.list()) == 2
    assert_same_tables(read_recording(tmp_path / "runs" / f"{first.id}.headroom"), small)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"], "nothing is left behind"


def test_what_cannot_be_made_leaves_the_store_as_it_was(tmp_path: Path, small: Recording) -> None:
    def half(path: Path) -> Recording:
        path.write_bytes(b"half")
        raise FormatError("no")

    with pytest.raises(FormatError, match="no"):
        RunStore(tmp_path).keep(half)
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


def test_what_a_failed_run_left_is_listed_but_answers_no_job(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    failed = store.add(Recording(metadata=metadata(key="k", facts={"error": "SpecError: no"}), events=Tape().recording().events))
    assert [run.metadata.id for run in store.list()] == [failed.id]
    assert store.find_key("k") is None

"""Anything may be in a file: it is a snapshot or it is refused in words, and nothing else happens."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analysis.blocks import Blocks
from profiler.errors import HeadroomError
from profiler.formats.convert import to_recording
from profiler.formats.snapshot import read_snapshot
from profiler.units import GIB
from tests.formats.snapshots import training

WHOLE = {protocol: pickle.dumps(training(), protocol) for protocol in (0, 2, 4)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@contextmanager
def little_memory() -> Iterator[None]:
    """Let this process map half a GiB more than it has: a memo index of four bytes takes gigabytes otherwise."""
    if sys.platform != "linux":
        pytest.skip("only Linux limits the address space of a process at any time")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + GIB // 2, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _read(data: bytes, folder: Path) -> None:
    path = folder / "a.pickle"
    path.write_bytes(data)
    try:
        with little_memory():
            read = read_snapshot(path)
        recording = to_recording(read)
    except HeadroomError as error:
        assert len(str(error)) < 1_000
    else:
        Blocks.of(recording)


@settings(max_examples=300, deadline=5_000)
@given(st.sampled_from([2, 4]), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_are_read_or_refused(folder: Path, protocol: int, changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE[protocol])
    for place, value in changes:
        data[place % len(data)] = value
    _read(bytes(data), folder)


@settings(max_examples=100, deadline=5_000)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.binary(max_size=20))
def test_cut_and_filled_files_are_read_or_refused(folder: Path, start: int, length: int, filling: bytes) -> None:
    data = WHOLE[4]
    start %= len(data)
    _read(data[:start] + filling + data[start + length % 50 :], folder)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3) | st.tuples(inner),
    max_leaves=8,
)
_PLACES = ["segments", "device_traces", "allocator_settings", "external_annotations"]


@settings(max_examples=150, deadline=5_000)
@given(st.sampled_from(_PLACES), _VALUES)
def test_any_value_in_place_of_a_table_is_read_or_refused(folder: Path, place: str, value: Any) -> None:
    _read(pickle.dumps({**training(), place: value}), folder)


@settings(max_examples=300, deadline=5_000)
@given(st.integers(0, 8), st.sampled_from(["action", "addr", "size", "stream", "time_us", "frames", "user_metadata", "pool_id"]), _VALUES)
def test_any_value_in_an_event_is_read_or_refused(folder: Path, row: int, field: str, value: Any) -> None:
    data = training()
    data["device_traces"][0][row][field] = value
    _read(pickle.dumps(data), folder)


@settings(max_examples=300, deadline=5_000)
@given(st.integers(0, 3), st.sampled_from(["address", "size", "requested_size", "state", "frames", "history"]), _VALUES)
def test_any_value_in_a_block_is_read_or_refused(folder: Path, row: int, field: str, value: Any) -> None:
    data = training()
    data["segments"][0]["blocks"][row][field] = value
    _read(pickle.dumps(data), folder)


@settings(max_examples=200, deadline=5_000)
@given(
    st.sampled_from(["device", "address", "total_size", "stream", "segment_type", "segment_pool_id", "is_expandable", "blocks"]), _VALUES
)
def test_any_value_in_a_segment_is_read_or_refused(folder: Path, field: str, value: Any) -> None:
    data = training()
    data["segments"][0][field] = value
    _read(pickle.dumps(data), folder)

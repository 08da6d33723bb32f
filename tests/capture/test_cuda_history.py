"""The CUDA allocator's history joined with torch.profiler's events, without a GPU: both sides come from a small allocator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.allocator.recorded_ooms import RecordedOom
from profiler.analysis.blocks import Blocks, Lane
from profiler.analysis.timeline import Timeline
from profiler.capture import cuda_join
from profiler.capture.cuda_history import read_snapshot
from profiler.capture.cuda_join import CudaJoin
from profiler.capture.stacks import Stacks
from profiler.recording import STACKS, Metadata, Provenance, Recording, Role
from profiler.tracing.convert import Converter
from profiler.tracing.notes import Label, Note
from profiler.tracing.raw import MemoryEvent, NoteEvent, Structure
from profiler.tracing.segments import Reserved
from profiler.tracing.workspaces import configured_size
from profiler.units import MIB
from tests.capture.fake_gpu import SECOND, FakeGpu

WORKSPACE = configured_size("", 8)
_STRUCTURE = Structure(frozenset(), frozenset())
_GROWS = {"preexisting", "segment_alloc", "segment_map"}
_SHRINKS = {"segment_free", "segment_unmap"}


class Session:
    """A recording of a `FakeGpu`."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.join = CudaJoin(origin_ns=0, rank=0)
        self.converter = Converter(0, 0)
        self.converter.begin(self.join.begin(read_snapshot(gpu.snapshot())), frozenset({WORKSPACE}))
        gpu.trace, gpu.events = [], []
        self.parts: dict[str, list[pa.Table]] = {"events": [], "segments": [], "stacks": []}
        self.truth: list[MemoryEvent] = []

    def end_window(self, notes: list[NoteEvent] | None = None, labels: list[Label] | None = None, **changes: Any) -> None:
        raw, snapshot = self.gpu.window()
        snapshot |= changes
        self.truth += [event for event in raw.events if isinstance(event, MemoryEvent)]
        raw.events += notes or []
        parts = self.join.join(raw, read_snapshot(snapshot)) | self.converter.convert(raw, 0, labels or [], _STRUCTURE)
        for name, tables in self.parts.items():
            tables.append(parts[name])

    def recording(self) -> Recording:
        tables = {name: pa.concat_tables(parts).unify_dictionaries() for name, parts in self.parts.items()}
        return Recording(Metadata(title="t", provenance=Provenance.MEASURED, engine="torch.profiler cuda", created=""), **tables)

    @property
    def warnings(self) -> list[str]:
        return self.join.warnings()


def rows(table: pa.Table, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.select(columns).to_pylist()]


def reserved_at(recording: Recording, time_us: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return reserved bytes at each time, from the table of segments alone."""
    segments = recording.segments.to_pandas()
    sign = np.where(segments.action.isin(_GROWS), 1, np.where(segments.action.isin(_SHRINKS), -1, 0))
    totals = np.append(0, np.cumsum(sign * segments.bytes.to_numpy()))
    return totals[np.searchsorted(segments.time_us.to_numpy(), time_us, side="right")]


def test_blocks_have_what_was_asked_for_what_was_given_and_where() -> None:
    gpu = FakeGpu()
    session = Session(gpu)
    small = gpu.malloc(100)
    large = gpu.malloc(3 * MIB + 1, line=2)
    gpu.free(large)
    session.end_window()
    recording = session.recording()

    first, second = gpu.segments
    assert rows(recording.events, "action", "requested_bytes", "block_bytes", "address", "pool", "segment", "stream", "stack") == [
        ("alloc", 100, 512, small, "small", first, 0, 0),
        ("alloc", 3 * MIB + 1, 3 * MIB + 512, large, "large", second, 0, 1),
        ("free_requested", 3 * MIB + 1, 3 * MIB + 512, large, "large", second, 0, 1),
        ("free_completed", 3 * MIB + 1, 3 * MIB + 512, large, "large", second, 0, 1),
    ]
    assert rows(recording.segments, "action", "address", "bytes", "device") == [
        ("segment_alloc", first, 2 * MIB, 0),
        ("segment_alloc", second, 20 * MIB, 0),
    ]
    assert rows(recording.stacks, "stack", "frames") == [
        (0, "torch/nn/modules/linear.py:125:forward\nproject/train.py:1:<module>"),
        (1, "torch/nn/modules/linear.py:125:forward\nproject/train.py:2:<module>"),
    ]
    assert session.warnings == []


def test_events_keep_the_operator_and_the_time_of_the_profiler() -> None:
    gpu = FakeGpu(skew_ns=900_000)  # far more than the time between two events
    session = Session(gpu)
    gpu.free(gpu.malloc(100, operator="aten::relu"))
    session.end_window()
    events = session.recording().events
    assert events["operator"].to_pylist() == ["aten::relu", None, None]
    assert events["module"].to_pylist()[0] == "layer"
    assert events["time_us"].to_pylist()[:2] == [(SECOND + 10_000) / 1e3, (SECOND + 20_000) / 1e3]


def test_a_delayed_free_lowers_allocated_at_once_and_completes_later() -> None:
    gpu = FakeGpu()
    session = Session(gpu)
    waits, other = gpu.malloc(512), gpu.malloc(1024)
    gpu.free(waits, delayed=True)
    gpu.free(other)
    session.end_window()
    gpu.malloc(2048)
    gpu.complete(waits)
    session.end_window()
    recording = session.recording()
    assert rows(recording.events, "action", "address")[2:] == [
        ("free_requested", waits),
        ("free_requested", other),
        ("free_completed", other),
        ("alloc", other + 1024),
        ("free_completed", waits),
    ]
    assert Timeline.of(recording, lane=Lane(0, 0)).total.tolist() == [512, 1536, 1024, 0, 0, 2048, 2048]


def test_what_was_held_before_the_recording_is_counted_with_its_tensors() -> None:
    gpu = FakeGpu()
    weight, waits = gpu.malloc(1000), gpu.malloc(600)
    gpu.free(waits, delayed=True)
    gpu.free(gpu.malloc(5 * MIB))  # cached: reserved and not allocated
    session = Session(gpu)
    gpu.malloc(700)
    label = Label(weight, 1000, 0, int(Role.NONE), "float32", "250", "weight")
    elsewhere = label._replace(pointer=0xABC, roles=int(Role.PARAMETER))  # memory that is not of torch's allocator
    session.end_window(labels=[label, elsewhere])
    recording = session.recording()

    assert rows(recording.events, "action", "requested_bytes", "block_bytes", "tensor") == [
        ("preexisting", 1000, 1024, "weight"),
        ("preexisting", 600, 1024, None),
        ("free_requested", 600, 1024, None),
        ("alloc", 700, 1024, None),
    ]
    assert rows(recording.segments, "action", "bytes") == [("preexisting", 2 * MIB), ("preexisting", 20 * MIB)]
    assert reserved_at(recording, np.array([recording.events["time_us"][0].as_py()])).tolist() == [22 * MIB]
    assert session.warnings == []
    assert session.converter.num_disagreements == 0


def test_threads_without_the_profiler_are_counted_and_said() -> None:
    gpu = FakeGpu()
    session = Session(gpu)
    address = gpu.malloc(512, seen=False)
    gpu.free(address, seen=False)
    assert gpu.malloc(500, operator="aten::relu") == address  # the same memory, for a thread that the profiler sees
    kept = gpu.malloc(300, seen=False)
    gpu.malloc(100)
    session.end_window()
    recording = session.recording()
    assert rows(recording.events, "action", "requested_bytes", "operator") == [
        ("alloc", 512, None),
        ("free_requested", 512, None),
        ("free_completed", 512, None),
        ("alloc", 500, "aten::relu"),
        ("alloc", 300, None),
        ("alloc", 100, "aten::mm"),
    ]
    assert kept in recording.events["address"].to_pylist()
    assert Timeline.of(recording).total[-1] == gpu.allocated
    assert session.converter.num_disagreements == 0
    assert session.warnings == ["3 allocations and frees on GPUs ran where torch.profiler does not see them: they have no operator."]


def test_a_history_that_was_too_long_is_said_and_put_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_join, "MAX_ENTRIES", 2)
    gpu = FakeGpu()
    session = Session(gpu)
    gpu.malloc(512)
    gpu.malloc(3 * MIB)
    session.end_window(device_traces=[gpu.trace[-2:]])  # the first block and its segment are lost
    gpu.malloc(700)
    monkeypatch.undo()
    session.end_window()
    recording = session.recording()
    assert rows(recording.events, "requested_bytes", "block_bytes") == [(None, 512), (3 * MIB, 3 * MIB), (700, 1024)]
    assert Timeline.of(recording).total[-1] == gpu.allocated
    assert reserved_at(recording, np.array([np.inf])).tolist() == [gpu.reserved]
    assert [warning.split()[0] for warning in session.warnings] == ["1", "2", "1"]


def test_running_out_of_memory_leaves_a_row_and_a_fact() -> None:
    gpu = FakeGpu()
    session = Session(gpu)
    gpu.malloc(512)
    gpu.run_out(80 * 2**30, device_free=7 * MIB)
    session.end_window()
    segments = session.recording().segments
    assert rows(segments, "action", "address", "bytes")[-1] == ("oom", None, 80 * 2**30)
    assert list(session.join.ooms) == [RecordedOom(0, 80 * 2**30, 7 * MIB)]
    assert reserved_at(session.recording(), np.array([np.inf])).tolist() == [2 * MIB]


def roles_of(make: Callable[[FakeGpu], int], *, labelled: bool = False) -> Role:
    """Return the role of the block that ``make`` allocates in a window."""
    gpu = FakeGpu()
    session = Session(gpu)
    address = make(gpu)
    found = Label(address, WORKSPACE, 0, int(Role.NONE), "uint8", str(WORKSPACE), None)
    gpu.now += 10_000
    session.end_window([NoteEvent(gpu.now, Note("labels", labels=[found]))] if labelled else [])
    events = session.recording().events.to_pandas()
    return Role(int(events[(events.address == address) & (events.action == "alloc")].roles.iloc[0]))


def test_memory_of_cublas_is_told_from_tensors() -> None:
    def dropped(gpu: FakeGpu) -> int:
        address = gpu.malloc(WORKSPACE)
        gpu.free(address)
        return address

    assert roles_of(lambda gpu: gpu.malloc(WORKSPACE)) is Role.WORKSPACE
    assert roles_of(lambda gpu: gpu.malloc(WORKSPACE, operator="aten::addmm")) is Role.WORKSPACE
    assert roles_of(lambda gpu: gpu.malloc(WORKSPACE), labelled=True) is Role.NONE  # a product of the same size, seen as a tensor
    assert roles_of(lambda gpu: gpu.malloc(WORKSPACE, operator="aten::relu")) is Role.NONE
    assert roles_of(lambda gpu: gpu.malloc(WORKSPACE - 4)) is Role.NONE
    assert roles_of(dropped) is Role.NONE


@pytest.mark.parametrize(
    ("config", "capability", "expected"),
    [
        ("", 8, 8_519_680),
        ("", 9, 32 * MIB),
        ("", 10, 32 * MIB),
        (":4096:8", 8, 32 * MIB),
        (":16:8", 9, 128 * 1024),
        (":4096:2:16:8", 9, 8_519_680),
        ("nonsense", 8, 8_519_680),
    ],
)
def test_a_workspace_is_as_large_as_it_is_configured(config: str, capability: int, expected: int) -> None:
    assert configured_size(config, capability) == expected


_ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["malloc", "malloc", "malloc", "free", "delayed", "complete", "empty_cache", "window"]),
        st.integers(1, 6 * MIB),
        st.integers(0, 1000),
        st.booleans(),
    ),
    max_size=60,
)


def play(gpu: FakeGpu, session: Session | None, actions: list[tuple[str, int, int, bool]], held: list[int], waiting: list[int]) -> None:
    for action, size, pick, seen in actions:
        if action == "malloc":
            held.append(gpu.malloc(size, seen=seen, line=pick % 5))
        elif action in ("free", "delayed") and held:
            address = held.pop(pick % len(held))
            gpu.free(address, seen=seen, delayed=action == "delayed")
            if action == "delayed":
                waiting.append(address)
        elif action == "complete" and waiting:
            gpu.complete(waiting.pop(pick % len(waiting)))
        elif action == "empty_cache":
            gpu.empty_cache()
        elif action == "window" and session is not None:
            session.end_window()


@settings(max_examples=60, deadline=None)
@given(before=_ACTIONS, during=_ACTIONS, all_seen=st.booleans())
def test_bytes_are_conserved_at_every_event(
    before: list[tuple[str, int, int, bool]], during: list[tuple[str, int, int, bool]], all_seen: bool
) -> None:
    gpu, held, waiting = FakeGpu(), [], []
    play(gpu, None, before, held, waiting)
    session = Session(gpu)
    play(gpu, session, [(*action[:3], action[3] or all_seen) for action in during], held, waiting)
    session.end_window()
    recording = session.recording()

    timeline = Timeline.of(recording, lane=Lane(0, 0))
    assert (timeline.total[-1] if timeline.num_events else 0) == gpu.allocated
    assert reserved_at(recording, np.array([np.inf])).tolist() == [gpu.reserved]
    assert session.converter.allocated_bytes == gpu.allocated
    assert session.join.num_disagreements == 0
    events = recording.events.to_pandas()
    assert events.time_us.is_monotonic_increasing
    known = {event.time_ns / 1e3: event for event in session.truth}
    at = np.flatnonzero(events.time_us.isin(known) & events.action.isin(["alloc", "free_requested"]))
    for row, total, reserved in zip(at, timeline.total[at], reserved_at(recording, events.time_us.to_numpy()[at]), strict=True):
        event = known[events.time_us[row]]
        assert reserved == event.total_reserved
        if all_seen:
            assert total == event.total_allocated
    assert len(at) == len(session.truth)
    if all_seen:
        assert session.warnings == []
        assert session.converter.num_disagreements == 0
    blocks = Blocks.of(recording)
    assert blocks.num_unmatched_frees == 0
    in_use = sum(block["size"] for block in gpu.blocks.values() if block["state"] != "inactive")
    completed = events[events.action == "free_completed"].block
    born = events[events.action.isin(["alloc", "preexisting"])]
    assert born[~born.block.isin(completed)].block_bytes.sum() == in_use


def test_mapped_ranges_join_and_one_unmap_cuts_several() -> None:
    reserved = Reserved()
    for address in (0, 20, 40, 100):
        reserved.add(address, 20, joins=True)
    assert reserved.ranges() == {0: 60, 100: 20}
    assert (reserved.find(59), reserved.find(60), reserved.find(110)) == (0, None, 100)
    reserved.remove(10, 20)
    assert reserved.ranges() == {0: 10, 30: 30, 100: 20}
    reserved.add(10, 20, joins=True)
    reserved.add(60, 40, joins=True)
    assert reserved.ranges() == {0: 120}
    reserved.remove(20, 100)
    assert reserved.ranges() == {0: 20}
    assert reserved.num_bytes == 20


def test_segments_that_touch_stay_apart_and_are_freed_one_by_one() -> None:
    reserved = Reserved()
    reserved.add(0, 20, joins=False)
    reserved.add(20, 20, joins=False)
    assert reserved.find(20) == 20
    reserved.remove(0, 20)
    assert reserved.ranges() == {20: 20}
    reserved.remove(20, 20)
    assert reserved.num_bytes == 0


def test_stacks_are_written_once_and_tell_no_home_folder() -> None:
    def frame(filename: str) -> dict[str, Any]:
        return {"filename": filename, "line": 3, "name": "f"}

    stacks = Stacks()
    assert stacks.number([]) is None
    assert stacks.number([frame("/opt/me/code/train.py")]) == 0
    assert stacks.number([frame("D:\\Users\\me\\model.py"), frame("/usr/lib/python3.11/runpy.py")]) == 1
    assert stacks.number([frame("/opt/me/code/train.py")]) == 0
    first = stacks.take()
    assert first.schema == STACKS
    assert first["frames"].to_pylist() == ["code/train.py:3:f", "me/model.py:3:f\nrunpy.py:3:f"]
    assert stacks.number([frame("/x/y/z.py")]) == 2
    assert stacks.take().to_pylist() == [{"stack": 2, "frames": "y/z.py:3:f"}]

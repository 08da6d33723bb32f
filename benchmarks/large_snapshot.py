"""How a snapshot of a gibibyte is opened and shown: memory, time, progress.

    python -m benchmarks.large_snapshot [FILE] [--events 5000000] [--frames 34] [--json]

Without a file a snapshot is made: a training's allocations and frees as PyTorch's allocator would have placed them, each with a call stack.
Resident memory is that of this process, which stands for the server, and of its workers, added up at one instant.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from profiler.allocator.allocator import CachingAllocator
from profiler.allocator.restore import snapshot
from profiler.allocator.state import BlockStatus
from profiler.analysis.replays import Question, Topic
from profiler.analysis.timeline import Timeline
from profiler.analysis.view import view_blocks
from profiler.figures.payload import blocks_payload
from profiler.figures.timeline import timeline_figure
from profiler.formats.worker import read_in_worker
from profiler.jobs.replayer import Replayer, Request
from profiler.recording import Action, Recording
from profiler.units import GIB
from tests.builders import synthetic_recording

START_US = 1_700_000_000_000_000


def main() -> None:
    """Measure and print a table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--frames", type=int, default=34, help="of each call stack")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or Path(folder) / "large.pickle"
        if arguments.file is None:  # in a process of its own, whose memory is not measured
            maker = multiprocessing.get_context("spawn").Process(target=synthetic, args=(arguments.events, arguments.frames, path))
            maker.start()
            maker.join()
        results = measure(path, Path(folder))
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    for name, value in results.items():
        print(f"{name:<46} {value:>14,.2f}" if isinstance(value, float) else f"{name:<46} {value:>14,}")


def measure(path: Path, folder: Path) -> dict[str, float]:
    """Return each number under its name, which says its unit."""
    results: dict[str, float] = {"file (GiB)": path.stat().st_size / GIB}
    shares: list[float] = []
    recording = _watched(results, "import", lambda: read_in_worker(path, folder / "large.headroom", progress=shares.append))
    results |= {"events": len(recording.events), "import, progress reports": len(shares)}
    timeline = _watched(results, "timeline", lambda: _drawn(Timeline.of(recording)))
    _watched(results, "block view, first", lambda: blocks_payload(timeline, view_blocks(timeline)))
    middle = timeline.num_events / 2
    _watched(results, "block view, zoomed in", lambda: blocks_payload(timeline, view_blocks(timeline, middle, middle + 10_000)))
    replayer = Replayer()
    for name, question in (("first replay", Question(Topic.SERIES)), ("next replay", Question(Topic.TRIAL, "expandable_segments:True"))):
        request = Request(folder / "large.headroom", recording.id, None, question)
        _watched(results, f"{name} in its worker", lambda: replayer.ask(request))  # noqa: B023  # called at once
    replayer.close()
    return results


def _drawn(timeline: Timeline) -> Timeline:
    timeline_figure(timeline, timeline.pick_rows(axis="time")).to_json()
    return timeline


def _watched(results: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    """Return what the work returns; write down its seconds and the largest resident memory while it was done."""
    ended, peak_bytes = threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(0.1):
            peak_bytes[0] = max(peak_bytes[0], _resident_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.perf_counter()
    try:
        result = work()
    finally:
        seconds = time.perf_counter() - began
        ended.set()
        thread.join()
    results |= {f"{name} (s)": seconds, f"{name}, resident (GiB)": max(peak_bytes[0], _resident_bytes()) / GIB}
    return result


def _resident_bytes() -> int:
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def synthetic(num_events: int, num_frames: int, path: Path) -> None:
    """Write a snapshot of about so many events, each with a stack of ``num_frames`` frames."""
    recording = synthetic_recording(num_events * 2 // 3)  # a free is two events of a snapshot
    chance = random.Random(1)
    frames = [(f"/lib/python3.12/site-packages/torch/nn/modules/part{n % 50}.py", n, f"call{n}") for n in range(3_000)]
    stacks = [chance.choices(frames, k=num_frames) for _ in range(2_000)]
    allocator = CachingAllocator()
    with path.open("wb", buffering=1 << 22) as file:
        pickled = _Pickled(file)
        pickled.write(b"\x80\x04", pickled.opened(b"}"), pickled.text("device_traces"), pickled.opened(b"]"), pickled.opened(b"]"))
        for number, (action, address, size, time_us) in enumerate(_requests(recording, allocator)):
            pickled.event(action, address, size, time_us, stacks[chance.randrange(len(stacks))])
            if number % 1_000 == 999:
                pickled.write(b"e(")
        pickled.write(b"ee", pickled.text("segments"), pickled.opened(b"]"))
        pickled.segments(allocator)
        pickled.write(b"e", pickled.text("allocator_settings"), b"}", pickled.text("external_annotations"), b"]u.")


def _requests(recording: Recording, allocator: CachingAllocator) -> Iterator[tuple[str, int, int, int]]:
    """Yield action, address, bytes and time of a snapshot's history, as the allocator decides it."""
    calls: list[tuple[str, int, int, int]] = []
    allocator.on_segment = lambda *call: calls.append(call)
    held: dict[int, Any] = {}
    events = recording.events
    columns = [events[name].to_numpy().tolist() for name in ("block", "requested_bytes", "time_us")]
    for action, block, size, time_us in zip(events["action"].to_pylist(), *columns, strict=True):
        now = START_US + int(time_us)
        if action == Action.FREE_COMPLETED:
            gone = held.pop(block)
            yield "free_requested", gone.address, size, now
            yield "free_completed", gone.address, size, now
            allocator.free(gone)
            continue
        held[block] = allocator.malloc(size)
        yield from ((name, address, num_bytes, now) for name, address, num_bytes, _ in calls)
        calls.clear()
        yield "alloc", held[block].address, size, now


class _Pickled:
    """Writes a pickle piece by piece, with dictionaries and lists memoized as by Python: whole, it would not fit in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._memo: dict[object, int] = {}
        self._num_memoized = 0

    def write(self, *pieces: bytes) -> None:
        self._file.write(b"".join(pieces))

    def event(self, action: str, address: int, size: int, time_us: int, stack: list[tuple[str, int, str]]) -> None:
        self.write(
            self.opened(b"}"), self.text("action"), self.text(action), self.text("addr"), _number(address), self.text("size"), _number(size)
        )
        self.write(self.text("stream"), _number(0), self.text("time_us"), _number(time_us), self.text("frames"))
        self.write(self.opened(b"]"), *map(self._frame, stack), b"eu")

    def segments(self, allocator: CachingAllocator) -> None:
        for segment in snapshot(allocator):
            held = sum(block.bytes for block in segment.blocks if block.status is not BlockStatus.INACTIVE)
            numbers = {"device": 0, "address": segment.address, "total_size": segment.bytes, "stream": 0, "requested_size": held}
            numbers |= {"allocated_size": held, "active_size": held}
            self.write(b"}(", *self._numbers(numbers), self.text("is_expandable"), b"\x89", self.text("frames"), b"]")
            self.write(self.text("segment_pool_id"), _number(0), _number(0), b"\x86", self.text("segment_type"))
            self.write(self.text("small" if segment.is_small else "large"), self.text("blocks"), b"](")
            for block in segment.blocks:
                state = "inactive" if block.status is BlockStatus.INACTIVE else "active_allocated"
                facts = {"address": block.address, "size": block.bytes, "requested_size": block.requested_bytes}
                self.write(b"}(", *self._numbers(facts), self.text("state"), self.text(state), self.text("frames"), b"]u")
            self.write(b"eu")

    def opened(self, kind: bytes) -> bytes:
        """Return the beginning of a dictionary or list, which readers find again in the memo."""
        self._num_memoized += 1
        return kind + b"\x94("

    def text(self, value: str) -> bytes:
        if value in self._memo:
            return self._get(value)
        self._put(value)
        data = value.encode()
        return b"\x8c" + bytes([len(data)]) + data + b"\x94"

    def _frame(self, frame: tuple[str, int, str]) -> bytes:
        if frame in self._memo:
            return self._get(frame)
        self._put(frame)
        file, line, name = frame
        parts = (self.text("filename"), self.text(file), self.text("line"), _number(line), self.text("name"), self.text(name))
        return b"}\x94(" + b"".join(parts) + b"u"

    def _numbers(self, facts: dict[str, int]) -> Iterator[bytes]:
        for name, value in facts.items():
            yield self.text(name)
            yield _number(value)

    def _put(self, key: object) -> None:
        self._memo[key] = self._num_memoized
        self._num_memoized += 1

    def _get(self, key: object) -> bytes:
        return b"j" + struct.pack("<I", self._memo[key])


def _number(value: int) -> bytes:
    if 0 <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(data)]) + data


if __name__ == "__main__":
    main()

"""How fast a CUDA snapshot is read, beside pt-snap-cli and PyTorch's own trace_plot, on the same file in one run.

    python -m benchmarks.peers_snapshots FILES... [--pt-snap PATH] [--repeats 3] [--json]

Without files a synthetic snapshot is made (``--events``). Seconds are the least of the repeats:
- ``read_and_replay``: the pickle read and replayed through the allocator, nothing kept of call stacks;
- ``import``: the pickle read with its stacks, blocks sized and categorized, the recording file written;
- ``import_in_worker``: the same in a process of its own with limits, its start included;
- ``pt_snap_import``: ``pt-snap import`` of pt-snap-cli (0.4.1 was measured), its start included; install it anywhere and name its path;
- ``trace_plot``: what ``python -m torch.cuda._memory_viz trace_plot`` does once torch is imported.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from profiler.allocator.replay import replay
from profiler.formats.convert import to_recording
from profiler.formats.replayable import replayable
from profiler.formats.snapshot import read_snapshot
from profiler.formats.worker import read_in_worker
from profiler.storage import write_recording
from profiler.units import MIB


def main() -> None:
    """Print a table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--events", type=int, default=150_000, help="of the synthetic snapshot, where no file is given")
    parser.add_argument("--pt-snap", type=Path, default=shutil.which("pt-snap"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = arguments.files or [synthetic(arguments.events, folder / "synthetic.pickle")]
        results = [measure(path, folder, arguments.pt_snap, arguments.repeats) for path in files]
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    for result in results:
        print(f"{result['file']}: {result['num_events']:,} events, {result['file_bytes'] / MIB:.1f} MiB")
        for name, seconds in result["seconds"].items():
            print(f"  {name:<18}{seconds:>9.3f} s{result['num_events'] / seconds:>14,.0f} events/s")


def measure(path: Path, folder: Path, pt_snap: Path | None, repeats: int) -> dict[str, Any]:
    """Return the seconds of each way for one file."""
    path = path.resolve()
    num_events = sum(len(history) for history in read_snapshot(path, stacks=False).devices)
    out = folder / "out.headroom"
    ways: dict[str, Callable[[], Any]] = {
        "read_and_replay": lambda: _read_and_replay(path),
        "import": lambda: write_recording(to_recording(read_snapshot(path)), out),
        "import_in_worker": lambda: read_in_worker(path, out),
        "trace_plot": _trace_plot(path, folder / "out.html"),
    }
    if pt_snap is not None:
        command = [str(Path(pt_snap).resolve()), "import", str(path), "--output-dir", str(folder / "db"), "--no-focus", "--force", "--json"]
        ways["pt_snap_import"] = lambda: _pt_snap(command, folder)
    seconds = {name: min(_seconds(way) for _ in range(repeats)) for name, way in ways.items()}
    return {"file": path.name, "file_bytes": path.stat().st_size, "num_events": num_events, "seconds": seconds}


def _read_and_replay(path: Path) -> None:
    for device in replayable(read_snapshot(path, stacks=False)):
        replay(device.trace, device.config, start=device.start, take_retries=True)


def _trace_plot(path: Path, out: Path) -> Callable[[], None]:
    from torch.cuda import _memory_viz

    def plot() -> None:
        with path.open("rb") as file:
            data = pickle.load(file)  # noqa: S301  # as the tool does; only name files here that you trust
        out.write_text(_memory_viz.trace_plot(data), encoding="utf-8")

    return plot


def _pt_snap(command: list[str], folder: Path) -> None:
    shutil.rmtree(folder / "db", ignore_errors=True)
    (folder / "db").mkdir()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"pt-snap failed: {done.stdout[-500:]}{done.stderr[-500:]}")


def _seconds(way: Callable[[], Any]) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def synthetic(num_events: int, path: Path) -> Path:
    """Write a snapshot of allocations and frees with stacks of twenty frames, and return its path."""
    chance = random.Random(1)
    frames = [{"filename": f"/lib/site-packages/torch/part{n % 50}.py", "line": n, "name": f"call{n}"} for n in range(3_000)]
    stacks = [chance.choices(frames, k=20) for _ in range(1_000)]
    base, size = 0x7F00_0000_0000, 2 * MIB
    num_blocks = max(num_events // 3, 1)
    events: list[dict[str, Any]] = [
        {"action": "segment_alloc", "addr": base, "size": 1_000 * size, "stream": 0, "time_us": 1, "frames": []}
    ]
    for number in range(num_blocks):
        about = {"addr": base + number % 1_000 * size, "size": size, "stream": 0, "compile_context": "N/A", "user_metadata": ""}
        events.append({"action": "alloc", **about, "time_us": 10 * number, "frames": list(chance.choice(stacks))})
        freed = list(chance.choice(stacks))
        events += [{"action": name, **about, "time_us": 10 * number + 5, "frames": freed} for name in ("free_requested", "free_completed")]
    blocks = [{"address": base, "size": 1_000 * size, "requested_size": 0, "state": "inactive", "frames": []}]
    segment = {"device": 0, "address": base, "total_size": 1_000 * size, "stream": 0, "segment_type": "large", "blocks": blocks}
    segment |= {"allocated_size": 0, "active_size": 0, "requested_size": 0, "segment_pool_id": (0, 0), "is_expandable": False, "frames": []}
    with path.open("wb") as file:
        pickle.dump({"segments": [segment], "device_traces": [events], "allocator_settings": {}, "external_annotations": []}, file, 4)
    return path


if __name__ == "__main__":
    main()

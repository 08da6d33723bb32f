"""How fast a CUDA snapshot is read, beside pt-snap-cli and PyTorch's own trace_plot, on the same file in one run.

    python -m benchmarks.peers_snapshots FILES... [--pt-snap PATH] [--repeats 3] [--json]

Without files a synthetic snapshot is made (``--events``). Seconds are processor time, so that what else the machine does is left out, and
the least of the repeats. Three ways begin once the program is imported, and end with its file written:
- ``import``: the pickle read with its stacks, blocks sized and categorized, the recording file written;
- ``pt_snap_import``: ``pt-snap import`` of pt-snap-cli (0.4.1 was measured); install it anywhere and name its path;
- ``trace_plot``: what ``python -m torch.cuda._memory_viz trace_plot`` does: the data pickled again into a page, nothing looked into.
``read_and_replay`` is the pickle read and replayed through the allocator, nothing kept of call stacks. Four are whole, with the start of
Python and all imports: ``import_in_worker``, which is what the dashboard does, and the commands ``pt_snap_import_with_start``,
``replay_command`` (``python -m profiler replay``, which reads in a process of its own) and ``trace_plot_command``.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import resource
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

_PT_SNAP = """
import sys, time
from pt_snap_cli.cli import app
began = time.process_time()
try:
    app()
except SystemExit as end:
    print("seconds", time.process_time() - began, file=sys.stderr)
    sys.exit(end.code)
"""


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
            print(f"  {name:<26}{seconds:>9.3f} s{result['num_events'] / seconds:>14,.0f} events/s")


def measure(path: Path, folder: Path, pt_snap: Path | None, repeats: int) -> dict[str, Any]:
    """Return the seconds of each way for one file."""
    path = path.resolve()
    num_events = sum(len(history) for history in read_snapshot(path, for_replay=True).devices)
    out = folder / "out.headroom"
    ways: dict[str, Callable[[], Any]] = {
        "read_and_replay": lambda: _read_and_replay(path),
        "import": lambda: write_recording(to_recording(read_snapshot(path)), out),
        "import_in_worker": lambda: read_in_worker(path, out),
        "trace_plot": _trace_plot(path, folder / "out.html"),
        "replay_command": lambda: _run("profiler", "replay", path, "--json"),
        "trace_plot_command": lambda: _run("torch.cuda._memory_viz", "trace_plot", path, "--output", folder / "out.html"),
    }
    if pt_snap is not None:
        ways["pt_snap_import_with_start"] = lambda: inside.append(_pt_snap(pt_snap, path, folder))
    inside: list[float] = []
    seconds = {name: min(_seconds(way) for _ in range(repeats)) for name, way in ways.items()}
    if inside:
        seconds["pt_snap_import"] = min(inside)
    return {"file": path.name, "file_bytes": path.stat().st_size, "num_events": num_events, "seconds": seconds}


def _read_and_replay(path: Path) -> None:
    for device in replayable(read_snapshot(path, for_replay=True)):
        replay(device.trace, device.config, start=device.start, take_retries=True)


def _trace_plot(path: Path, out: Path) -> Callable[[], None]:
    from torch.cuda import _memory_viz

    def plot() -> None:
        with path.open("rb") as file:
            data = pickle.load(file)  # noqa: S301  # as the tool does; only name files here that you trust
        out.write_text(_memory_viz.trace_plot(data), encoding="utf-8")

    return plot


def _run(module: str, *arguments: str | Path) -> None:
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], cwd=root, capture_output=True, check=True)


def _pt_snap(script: Path, path: Path, folder: Path) -> float:
    """Run ``pt-snap import`` in the Python it is installed in and return its seconds after its own start."""
    shutil.rmtree(folder / "db", ignore_errors=True)
    (folder / "db").mkdir()
    python = script.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#!").strip()
    arguments = ["import", str(path), "--output-dir", str(folder / "db"), "--no-focus", "--force", "--json"]
    done = subprocess.run([python, "-c", _PT_SNAP, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"pt-snap failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    return float(done.stderr.rpartition("seconds ")[2])


def _seconds(way: Callable[[], Any]) -> float:
    began = _processor_seconds()
    way()
    return _processor_seconds() - began


def _processor_seconds() -> float:
    """Return what this process and the children that ended have used."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


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

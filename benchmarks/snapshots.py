"""How exactly, and how fast, recorded CUDA memory snapshots are reproduced.

    python -m benchmarks.snapshots FILES... [--json]

One object a file and device. A history is first replayed decision by decision (address of each allocation, when and how big each new
segment, what was given back, the blocks at the end), then freely: made-up addresses for new segments, everything decided by the model.
``events_per_second`` counts reading the file, finding its first state, and one free replay: processor time of one thread, so that what else
the machine does is left out. Imports of modules and the start of Python are not in it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from profiler.allocator.replay import Replay, replay
from profiler.allocator.verify import verify
from profiler.formats.replayable import DeviceReplay, replayable
from profiler.formats.snapshot import read_snapshot

_COUNTS = ("allocs", "segments", "releases", "final_blocks")
_PEAKS = ("peak_requested_bytes", "peak_allocated_bytes", "peak_reserved_bytes")


def main() -> int:
    """Print the table, or JSON with ``--json``; return 1 if a decision differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = [result for path in arguments.files for result in measure(path)]
    if arguments.json:
        print(json.dumps(results, indent=1))
    else:
        print(*map(_line, results), sep="\n")
    return 0 if all(_is_exact(result) for result in results) else 1


def measure(path: Path, repeats: int = 5) -> list[dict[str, Any]]:
    """Return what was reproduced, for each device of a snapshot; the time is the least of ``repeats``."""
    seconds = min(_read_and_replay(path)[0] for _ in range(repeats))
    _, devices, free = _read_and_replay(path)
    num_events = sum(len(device.trace) for device in devices)
    rate = round(num_events / seconds)
    peaks = [run.stats.peak_reserved_bytes for run in free]
    return [_result(path, device, peak, rate) for device, peak in zip(devices, peaks, strict=True)]


def _read_and_replay(path: Path) -> tuple[float, list[DeviceReplay], list[Replay]]:
    """Return the seconds that it took, the devices of a snapshot, and their free replays."""
    began = time.process_time()
    devices = replayable(read_snapshot(path, for_replay=True))
    free = [replay(device.trace, device.config, start=device.start, take_retries=True) for device in devices]
    return time.process_time() - began, devices, free


def _result(path: Path, device: DeviceReplay, free_peak: int, events_per_second: int) -> dict[str, Any]:
    check = verify(device.trace, device.start, device.final, device.config)
    result: dict[str, Any] = {"file": path.name, "device": device.device, "num_events": len(device.trace)}
    for name in _COUNTS:
        result[f"num_{name}"] = getattr(check, f"num_{name}")
        result[f"num_{name}_matched"] = getattr(check, f"num_{name}_matched")
    result |= {name: getattr(check.stats, name) for name in _PEAKS}
    result |= {"free_running_peak_reserved_bytes": free_peak, "events_per_second": events_per_second}
    return result | {"first_difference": check.first_difference}


def _is_exact(result: dict[str, Any]) -> bool:
    return result["first_difference"] is None and result["free_running_peak_reserved_bytes"] == result["peak_reserved_bytes"]


def _line(result: dict[str, Any]) -> str:
    counts = "  ".join(f"{name} {result[f'num_{name}_matched']}/{result[f'num_{name}']}" for name in _COUNTS)
    peaks = "  ".join(f"{name.removesuffix('_bytes')} {result[name]:,} B" for name in _PEAKS)
    free = f"free-running {result['free_running_peak_reserved_bytes']:,} B"
    difference = f"\n  first difference: {result['first_difference']}" if result["first_difference"] else ""
    return (
        f"{result['file']} device {result['device']}\n  {counts}\n  {peaks}  {free}\n  {result['events_per_second']:,} events/s{difference}"
    )


if __name__ == "__main__":
    sys.exit(main())

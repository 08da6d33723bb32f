"""Ten thousand damaged and hostile snapshots: each is read or refused in words, and nothing else happens.

    python -m benchmarks.fuzz_snapshots [--inputs 10000] [--seed 1] [--json]

Inputs are small snapshots (every protocol, gzip, page, several devices, the oldest format) with bytes changed, cut, doubled or joined with
another's, with opcodes put in that import, call or claim gigabytes, or with any value in place of a field. They are read in child processes
whose address space is limited as that of the worker. Counted: read, refused, crashed (the child died), hung (over 5 s), ran (anything was
imported or started, or a folder made). The last three must be 0; the exit code says so.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import pickle
import queue
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from profiler.errors import HeadroomError
from profiler.formats.convert import to_recording
from profiler.formats.snapshot import read_snapshot
from profiler.platform_calls import limit_address_space
from profiler.units import GIB
from tests.formats.snapshots import BASE, FORWARD, MIB, History, block, segment, snapshot, training

ROOT = Path(__file__).resolve().parent.parent
HANG_SECONDS = 5.0
_CANARY = "headroom-fuzz-ran"
_OPCODES = (
    b"cos\nmkdir\n(V" + _CANARY.encode() + b"\ntR.",
    b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x11" + _CANARY.encode() + b"\x85R.",
    b"(V" + _CANARY.encode() + b"\nios\nmkdir\n",
    b"Pos\n",
    b"Q",
    b"\x82\x01",
    b"\x84\x01\x00\x00\x00",
    b"R",
    b"b",
    b"\x81",
    b"r\xff\xff\xff\x7f",
    b"\x8e" + (2**40).to_bytes(8, "little"),
    b"\x96" + (2**33).to_bytes(8, "little"),
    b"\x95" + (2**50).to_bytes(8, "little"),
    b"B\xff\xff\xff\x7f",
    b"\x8b\xff\xff\xff\x7f",
    b")" + b"\x85" * 5_000,
    b"]" * 5_000,
    b"(" * 5_000,
)
_WATCHED = ("os.mkdir", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "shutil.rmtree", "exec", "compile", "import")


_VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**50,
    2**63,
    2**70,
    1.5,
    "",
    "x",
    "active_allocated",
    "alloc",
    b"x",
    [],
    {},
    (0, 0),
    [[]],
    [{}],
    [1],
)


def snapshots() -> list[Any]:
    """Return small snapshots of every shape."""
    expandable = History().add("segment_map", BASE, 20 * MIB).alloc(BASE, 4 * MIB, FORWARD).free(BASE, 4 * MIB, FORWARD)
    expandable.add("segment_unmap", BASE, 20 * MIB).add("oom", 0, 9 * MIB, device_free=MIB)
    old = {"size": 512, "requested_size": 100, "state": "active_allocated", "history": [{"addr": 1, "real_size": 90, "frames": FORWARD}]}
    one = segment(BASE, 2 * MIB, [block(BASE, 512, 100), block(BASE + 512, 2 * MIB - 512, 0, "inactive")])
    labelled = History(user_metadata="parameter", compile_context="N/A", pool_id=(0, 1)).alloc(BASE, 100, FORWARD)
    return [
        training(),
        snapshot([], [expandable.events]),
        {"segments": [segment(BASE, 2 * MIB, [old])], "device_traces": [[{"action": "snapshot", "addr": 0, "size": 5, "stream": 0}]]},
        snapshot([one, {**one, "device": 1}], [[], labelled.events]),
        [one],
    ]


def corpus() -> list[bytes]:
    """Return the files whose bytes are changed."""
    plain = [pickle.dumps(data, protocol) for data in snapshots() for protocol in (0, 2, 3, 4, 5)]
    pages = [f"<html>{json.dumps([{'name': 's', 'base64': base64.b64encode(data).decode()}])}</html>".encode() for data in plain[:3]]
    return plain + [gzip.compress(data, mtime=0) for data in plain[::5]] + pages


def mutate(originals: list[bytes], number: int, seed: int) -> bytes:
    """Return input ``number``; the same for the same seed."""
    chance = random.Random(seed * 1_000_003 + number)
    if number % 3 == 0:
        return _with_other_values(chance)
    data = bytearray(chance.choice(originals))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        place, length = chance.randrange(len(data) + 1), chance.randrange(1, 64)
        kind = chance.randrange(7)
        if kind == 0:
            data[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = data[place : place + length] * chance.randrange(1, 4)
        elif kind == 3:
            other = chance.choice(originals)
            start = chance.randrange(len(other))
            data[place:place] = other[start : start + length]
        elif kind == 4:
            data[place:place] = chance.choice(_OPCODES)
        elif kind == 5:
            data[place : place + 4] = chance.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x00\x00\x00\x80", b"\x01\x00\x00\x7f"))
        else:
            del data[place:]
    return bytes(data)


def _with_other_values(chance: random.Random) -> bytes:
    """Return a snapshot with other values in some fields."""
    data = chance.choice(snapshots())
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        place = data
        while isinstance(place, dict | list) and place:
            key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], dict | list) or not place[key] or chance.random() < 0.1:
                place[key] = chance.choice(_VALUES)
                break
            place = place[key]
    return pickle.dumps(data, chance.randrange(6))


def read_range(first: int, last: int, seed: int, folder: Path) -> None:
    """In a child: read the inputs from ``first`` on, one line of output each."""
    originals = corpus()
    path = folder / "input.pickle"
    path.write_bytes(originals[0])
    to_recording(read_snapshot(path))  # what is imported on first use is imported now
    ran: list[str] = []
    reading = [False]
    sys.addaudithook(lambda event, arguments: ran.append(event) if reading[0] and event in _WATCHED else None)
    limit_address_space(2 * GIB)
    for number in range(first, last):
        path.write_bytes(mutate(originals, number, seed))
        reading[0] = True
        outcome = _read(path)
        reading[0] = False
        print(number, "ran " + ran[0] if ran else outcome, flush=True)
        ran.clear()


def _read(path: Path) -> str:
    try:
        to_recording(read_snapshot(path))
    except HeadroomError:
        return "refused"
    except MemoryError:
        return "refused"
    return "read"


def fuzz(num_inputs: int, seed: int) -> dict[str, Any]:
    """Return how many inputs were read, refused, crashed, hung and ran, and which did the last three."""
    counts: Counter[str] = Counter(dict.fromkeys(("read", "refused", "crashed", "hung", "ran"), 0))
    bad: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        next_input = 0
        while next_input < num_inputs:
            next_input = _child(next_input, num_inputs, seed, Path(folder), counts, bad)
        if (Path(folder) / _CANARY).exists():
            counts["ran"] += 1
    return {"num_inputs": num_inputs, "seed": seed, **{f"num_{name}": count for name, count in counts.items()}, "bad": bad}


def _child(first: int, last: int, seed: int, folder: Path, counts: Counter[str], bad: list[str]) -> int:
    """Run one child until it is done, dies or hangs; return the next input."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.fuzz_snapshots",
        "--child",
        str(first),
        str(last),
        "--seed",
        str(seed),
        "--folder",
        str(folder),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_listen, args=(child, lines), daemon=True).start()
        number = first
        patience = 60.0  # to start
        while True:
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                child.kill()
                return _bad("hung", number, counts, bad)
            if line is None:
                return number if number == last else _bad("crashed", number, counts, bad)
            patience = HANG_SECONDS
            outcome = line.split(" ", 1)[1].strip()
            counts[outcome.split(" ")[0]] += 1
            if outcome.startswith("ran"):
                bad.append(f"{number}: {outcome}")
            number += 1


def _bad(kind: str, number: int, counts: Counter[str], bad: list[str]) -> int:
    counts[kind] += 1
    bad.append(f"{number}: {kind}")
    return number + 1


def _listen(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in _lines(child):
        lines.put(line)
    lines.put(None)


def _lines(child: subprocess.Popen[str]) -> Iterator[str]:
    assert child.stdout is not None
    yield from child.stdout


def main() -> int:
    """Print the counts; return 1 if anything crashed, hung or ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        read_range(*arguments.child, arguments.seed, arguments.folder)
        return 0
    result = fuzz(arguments.inputs, arguments.seed)
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        print("  ".join(f"{name.removeprefix('num_')} {count:,}" for name, count in result.items() if name.startswith("num_")))
        print(*result["bad"], sep="\n")
    return int(bool(result["num_crashed"] or result["num_hung"] or result["num_ran"]))


if __name__ == "__main__":
    sys.exit(main())

"""``export``: a recording for other tools, as a CUDA memory snapshot or as a trace."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from profiler.analysis.blocks import Blocks
from profiler.analysis.categories import CATEGORIES
from profiler.analysis.segment_rows import reserved_levels
from profiler.cli.command import DONE, Commands, add_command, output_path, print_json
from profiler.cli.reading import add_file_option, add_reading_options, read_file, reading_of
from profiler.errors import StorageError
from profiler.formats.export_snapshot import write_snapshot
from profiler.formats.perfetto import Counter, write_trace
from profiler.formats.ranks import of_rank
from profiler.recording import Recording
from profiler.units import exact_bytes

_LABELS = [category.label for category in CATEGORIES]


def add(commands: Commands) -> None:
    """Declare the command."""
    command = add_command(commands, "export", _run, "write a recording for other tools")
    add_file_option(command)
    command.add_argument(
        "--to",
        required=True,
        choices=sorted(_WRITERS),
        help="snapshot: a pickle for PyTorch's memory viewer; trace: gzipped JSON for Perfetto, with memory by category, and reserved",
    )
    command.add_argument("--rank", type=int, metavar="N", help="of which process only, where a recording has several")
    command.add_argument("--out", type=Path, required=True, help="the file to write, such as NAME.pickle or NAME.json.gz")
    add_reading_options(command)


def _run(options: argparse.Namespace) -> int:
    out = output_path(options.out)
    recording = read_file(options.file, reading_of(options))
    if options.rank is not None:
        recording = of_rank(recording, options.rank)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        _WRITERS[options.to](recording, temporary)
        temporary.replace(out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror}. Choose another --out.") from error
    finally:
        temporary.unlink(missing_ok=True)
    written: dict[str, Any] = {"path": str(out), "format": options.to, "bytes": out.stat().st_size}
    print_json(written) if options.json else print(f"{out}  {exact_bytes(written['bytes'])}")
    return DONE


def _snapshot(recording: Recording, out: Path) -> None:
    """Write the snapshot; each allocation's category is shown beside it."""
    blocks = Blocks.of(recording)
    numbers = recording.events["block"].to_numpy()[blocks.birth_event].tolist()
    write_snapshot(recording, out, {number: _LABELS[code] for number, code in zip(numbers, blocks.category.tolist(), strict=True)})


def _trace(recording: Recording, out: Path) -> None:
    write_trace(recording, out, _counters(recording))


def _counters(recording: Recording) -> list[Counter]:
    """Return what is allocated in each memory of a recording, by category, and what was reserved where the recording says it."""
    blocks = Blocks.of(recording)
    found = []
    for lane in blocks.lanes():
        mine = (blocks.device == lane.device) & (blocks.rank == lane.rank)
        of_mine = (blocks.birth_event[mine], blocks.death_event[mine], blocks.bytes[mine])
        found.append(Counter.of_blocks(f"Allocated, {lane.label}", blocks.event_us, *of_mine, _LABELS, blocks.category[mine]))
        times, reserved = reserved_levels(recording, lane)
        if len(times):
            found.append(Counter(f"Reserved, {lane.label}", times, {"Reserved": reserved}))
    return found


_WRITERS = {"snapshot": _snapshot, "trace": _trace}

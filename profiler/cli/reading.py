"""The FILE of a command -> a recording, read as a stranger's, with its progress on a terminal."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from profiler.analysis.blocks import Lane
from profiler.cli.command import require, show_progress
from profiler.cli.job import named_model
from profiler.errors import SpecError
from profiler.formats.opening import SNAPSHOT_SUFFIXES, Reading, open_file
from profiler.jobs.inspection import parameter_bytes
from profiler.optimizations.precision import ITEMSIZES
from profiler.recording import Recording
from profiler.storage import SUFFIX

FILE_HELP = f"a {SUFFIX} file, a CUDA memory snapshot ({', '.join(SNAPSHOT_SUFFIXES)}), or a folder with one snapshot a rank"
_FORMATS = tuple(ITEMSIZES)


def add_file_option(parser: argparse.ArgumentParser, name: str = "file") -> None:
    """Declare a file that `read_file` reads."""
    parser.add_argument(name, type=Path, help=FILE_HELP)


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Declare what a user can say about a snapshot; `reading_of` reads it."""
    parser.add_argument("--rules", type=Path, metavar="JSON", help="for snapshots: category rules that come before Headroom's own")
    parser.add_argument(
        "--model", help="for snapshots: the model that ran; tells parameters and optimizer state among what is older (needs torch)"
    )
    parser.add_argument("--model-dtype", default=_FORMATS[0], choices=_FORMATS, help=f"of its parameters (default {_FORMATS[0]})")


def reading_of(options: argparse.Namespace) -> Reading:
    """Return what the options of `add_reading_options` say.

    Raises:
        SpecError: the model is not known.
        CaptureUnavailable: a model is named and torch is not installed.
        JobFailed: the process that looks at the model failed.
    """
    sizes: list[int] = []
    if options.model:
        for library in ("torch", "transformers"):
            require(library, "--model")
        sizes = parameter_bytes(named_model(options.model), options.model_dtype)
    return Reading(parameter_bytes=sizes, rules=options.rules)


def read_file(path: Path, reading: Reading | None = None) -> Recording:
    """Return the recording in a file of any kind.

    Args:
        path: the file or folder.
        reading: what is said about it, where it is a snapshot.

    Raises:
        StorageError, FormatError: as `profiler.formats.opening.open_file`.
    """
    with progress_shown(f"Reading {path.name}") as progress:
        return open_file(path, reading, progress)


def add_lane_options(parser: argparse.ArgumentParser) -> None:
    """Declare which memory of a recording is meant; `chosen_lane` reads it."""
    parser.add_argument("--device", type=int, metavar="N", help="which GPU, where a recording has several; -1 is host memory")
    parser.add_argument("--rank", type=int, default=0, metavar="N", help="of which process, where a recording has several")


def chosen_lane(recording: Recording, options: argparse.Namespace) -> Lane:
    """Return the memory that is meant; without a device the first GPU, or the host where there is none.

    Raises:
        SpecError: the recording does not have it.
    """
    devices, ranks = (recording.events[name].fill_null(0).to_numpy() for name in ("device", "rank"))
    pairs = np.unique(np.stack([devices, ranks]), axis=1).T.tolist()
    lanes = sorted((Lane(*pair) for pair in pairs), key=lambda lane: (lane.device < 0, abs(lane.device), lane.rank))
    chosen = [lane for lane in lanes if lane.rank == options.rank and options.device in (None, lane.device)]
    if not chosen:
        wanted = f"rank {options.rank}" if options.device is None else f"device {options.device} of rank {options.rank}"
        has = ", ".join(f"--device {lane.device} --rank {lane.rank}" for lane in lanes[:8]) or "no events at all"
        raise SpecError(f"The recording holds nothing of {wanted}. It has: {has}.")
    return chosen[0]


@contextlib.contextmanager
def progress_shown(doing: str) -> Iterator[Callable[[float], None] | None]:
    """Give what tells on a terminal how far something is, 0 to 1; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        yield lambda share: show_progress(f"{doing}: {share:.0%}")
    finally:
        show_progress()

"""A CUDA memory snapshot (``torch.cuda.memory._dump_snapshot``) -> columns, checked field by field.

Reads what torch 1.13 to 2.13 write: with or without a history, with one that wrapped, of one or several devices. Facts about the format:
docs of ``torch.cuda.memory._snapshot`` and what real files hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from profiler.errors import FormatError
from profiler.formats.containers import inspect, open_pickle
from profiler.formats.drain import Drain
from profiler.formats.history import DeviceHistory
from profiler.formats.stacks import Frame, Stacks
from profiler.formats.state import Segment, read_segments
from profiler.formats.unpickle import no_collection

_MAX_DEVICES = 1_024
_MAX_ANNOTATIONS = 5_000_000
_MAX_SETTING = 10_000
_SEVERAL = 200

_VERSIONS: tuple[tuple[str, tuple[int, int], str], ...] = (
    ("pool_id", (2, 13), "2.12 or 2.13"),
    ("user_metadata", (2, 11), "2.10 or 2.11"),
    ("compile_context", (2, 9), "2.7 to 2.9"),
    ("external_annotations", (2, 6), "2.5 or 2.6"),
    ("time_us", (2, 4), "2.2 to 2.4"),
    ("block address", (2, 1), "2.1"),
)
"""What a version brought, the version taken for it, and what is said; newest first."""
_OLDEST = ((2, 0), "1.13 or 2.0")


class Annotation(NamedTuple):
    """One end of a named interval, such as ``Optimizer.step#AdamW.step``."""

    name: str
    starts: bool
    device: int
    time_us: int


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a snapshot file holds."""

    name: str
    devices: list[DeviceHistory]
    """The histories that have events, by device."""
    segments: list[Segment]
    """The state when the snapshot was taken: all reserved memory of all devices."""
    frames: list[Frame]
    stacks: list[tuple[int, ...]]
    """For each stack the places of its frames in `frames`, innermost first."""
    settings: dict[str, Any]
    """``allocator_settings``, plain values only."""
    external_annotations: list[Annotation]
    torch_version: tuple[int, int]
    """The version whose rules fit, guessed from the fields that are there."""
    torch_version_guess: str
    """The same for people, such as ``2.7 to 2.9``."""
    warnings: list[str] = field(default_factory=list)
    """What was left out, one sentence each."""

    def stack_text(self, stack: int) -> str:
        """Return a stack as lines ``file:line:function``, innermost first."""
        return "\n".join(str(self.frames[frame]) for frame in self.stacks[stack])


def read_snapshot(path: Path | str, progress: Callable[[float], None] | None = None, *, for_replay: bool = False) -> Snapshot:
    """Return the snapshot in a pickle (protocols 0 to 5), a gzipped one, or a memory_viz page.

    Nothing in the file runs. It is read in this process, so a hostile file can still exhaust its memory: for files of strangers use
    `profiler.formats.worker.read_in_worker`.

    Args:
        path: the file.
        progress: called now and then with the share that is read, 0 to 1.
        for_replay: leave out what a replay does not need, times, call stacks and labels; this is a third faster.

    Raises:
        StorageError: the file cannot be read.
        FormatError: it is not a snapshot, is damaged, or asks for an import.
    """
    path = Path(path)
    size = inspect(path).payload_bytes
    kept = Stacks(wanted=not for_replay)
    drain = Drain(kept, path.name, lambda position: progress(min(position / size, 1.0)) if progress else None)
    try:
        with no_collection(), open_pickle(path, drain.before_read) as source:
            return _snapshot(drain.load(source), path.name, drain, kept)
    except FormatError as error:
        if path.name in str(error):
            raise
        raise FormatError(f"{path.name} is not a CUDA memory snapshot that can be shown: {error}") from error


def _snapshot(data: Any, name: str, drain: Drain, stacks: Stacks) -> Snapshot:
    if type(data) is list:
        data = {"segments": data}  # what torch.cuda.memory_snapshot() returns
    if type(data) is not dict or type(data.get("segments")) is not list:
        raise FormatError("it has no segments. Choose the pickle that torch.cuda.memory._dump_snapshot wrote.")
    traces = data.get("device_traces", [])
    if type(traces) is not list or len(traces) > _MAX_DEVICES:
        raise FormatError(f"device_traces is not a list of at most {_MAX_DEVICES:,} histories. Record the snapshot again.")
    devices = [history for device, trace in enumerate(traces) if len(history := drain.history(device, trace))]
    segments = read_segments(data["segments"], stacks)
    annotations = _annotations(data.get("external_annotations") or [])
    keys = drain.keys | {key for key in data if type(key) is str}
    if any(block.address is not None for segment in segments for block in segment.blocks):
        keys.add("block address")
    stacks.forget()
    version, guess = next(((version, guess) for key, version, guess in _VERSIONS if key in keys), _OLDEST)
    return Snapshot(
        name=name,
        devices=devices,
        segments=segments,
        frames=stacks.frames,
        stacks=stacks.stacks,
        settings=_settings(data.get("allocator_settings") or {}),
        external_annotations=annotations,
        torch_version=version,
        torch_version_guess=guess,
        warnings=drain.warnings(),
    )


def _annotations(rows: Any) -> list[Annotation]:
    if type(rows) is not list or len(rows) > _MAX_ANNOTATIONS:
        raise FormatError(f"external_annotations is not a list of at most {_MAX_ANNOTATIONS:,}. Record the snapshot again.")
    annotations: list[Annotation] = []
    for row in rows:
        values: list[Any] = [row.get(key) for key in ("name", "stage", "device", "time_us")] if type(row) is dict else []
        if [type(value) for value in values] != [str, str, int, int] or not (0 <= values[3] < 2**63 and -1 <= values[2] < _MAX_DEVICES):
            raise FormatError(f"external annotation {len(annotations):,} has no name, stage, device and time. Record the snapshot again.")
        annotations.append(Annotation(values[0][:_MAX_SETTING], values[1] == "START", values[2], values[3]))
    return annotations


def _settings(settings: Any) -> dict[str, Any]:
    """Return the plain values of ``allocator_settings``; whatever else somebody put there is left out."""
    if type(settings) is not dict:
        return {}
    kept: dict[str, Any] = {}
    for key, value in list(settings.items())[:_SEVERAL]:
        if type(key) is not str or len(key) > _SEVERAL:
            continue
        if type(value) is dict:
            kept[key] = {str(k)[:_SEVERAL]: v for k, v in list(value.items())[:_SEVERAL] if type(k) in (str, int) and _plain(v)}
        elif _plain(value):
            kept[key] = value
    return kept


def _plain(value: Any) -> bool:
    if type(value) is str:
        return len(value) <= _MAX_SETTING
    return type(value) in (bool, float) or (type(value) is int and abs(value) < 2**63)

"""``replay``: a recording's requests through the allocator's rules, as they were or under other settings, on another card."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from profiler.allocator.config import NEWEST, AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.allocator.options import bare_text
from profiler.allocator.out_of_memory import Explanation, explain_out_of_memory
from profiler.allocator.recorded import recorded
from profiler.allocator.replay import replay
from profiler.allocator.trace import Trace
from profiler.allocator.what_if import Trial
from profiler.analysis.blocks import Lane
from profiler.analysis.instants import failure_facts
from profiler.analysis.limits import limits_of_replay
from profiler.analysis.recorded_failure import RecordedFailure, explain_recorded_failure
from profiler.analysis.replays import CountedTrace, Topic
from profiler.analysis.timeline import Timeline
from profiler.cli.command import DONE, Commands, add_command, print_json
from profiler.cli.reading import add_file_option, add_lane_options, add_reading_options, chosen_lane, progress_shown, read_file, reading_of
from profiler.errors import SpecError
from profiler.recording import Category, Provenance, Recording
from profiler.units import exact_bytes, format_bytes, parse_bytes

_MAX_ALIVE = 5
"""Rows that are printed of each table of what was alive; JSON has more."""
_PEAKS = ("peak_requested_bytes", "peak_allocated_bytes", "peak_active_bytes", "peak_reserved_bytes")


def add(commands: Commands) -> None:
    """Declare the command."""
    command = add_command(commands, "replay", _run, "say what the CUDA caching allocator reserves for a recording's requests")
    add_file_option(command)
    command.add_argument(
        "--alloc-conf",
        metavar="TEXT",
        type=bare_text,
        help="other settings, as in PYTORCH_CUDA_ALLOC_CONF, such as expandable_segments:True",
    )
    command.add_argument("--torch", metavar="VERSION", help="the torch version whose rules apply, such as 2.6")
    command.add_argument("--capacity", metavar="SIZE", help="what the allocator may reserve, such as 24GiB; without it, no limit")
    add_lane_options(command)
    add_reading_options(command)
    command.epilog = (
        "Without --alloc-conf, --torch and --capacity, what happened is reproduced, from what was reserved at its beginning on. With any of"
        " them, live blocks that are older than the recording are allocated first and what was cached is left out, so that no setting"
        ' inherits the cache of another: compare with `--alloc-conf ""`, which is torch\'s defaults.'
    )


def _run(options: argparse.Namespace) -> int:
    capacity_bytes = _capacity(options.capacity)
    version = _version(options.torch) if options.torch else None
    if options.alloc_conf:
        AllocatorConfig.parse(options.alloc_conf, version or NEWEST)  # refused before a large file is read
    recording = read_file(options.file, reading_of(options))
    lane = chosen_lane(recording, options)
    found = recorded(recording, lane.device, lane.rank)
    as_recorded = options.alloc_conf is None and version is None and capacity_bytes is None
    config = _config(found.config, options.alloc_conf, version)
    timeline = Timeline.of(recording, lane=lane)
    name = options.alloc_conf or ("defaults" if options.alloc_conf == "" or not found.knows_segments else "as recorded")
    trace = found.trace if as_recorded else found.trace.preceded_by(found.start)
    with progress_shown(f"Replaying {options.file.name}") as progress:
        told = _told(trace, 1, progress)
        start = found.start if as_recorded else ()
        trial = Trial.of(name, replay(told, config, Driver(capacity_bytes), start=start, take_retries=as_recorded))
    out_of_memory = None
    with progress_shown("Trying other settings") as progress:

        def tried(trace: Trace) -> Trace:
            return _told(trace, Topic.EXPLANATION.num_replays, progress)

        if as_recorded:
            out_of_memory = _recorded_failure(explain_recorded_failure(recording, timeline, tried))
        elif trial.oom:
            out_of_memory = _failure(recording, timeline, tried(trace), trial)
    notes = limits_of_replay(
        recording, lane, trace, knows_segments=found.knows_segments, as_recorded=as_recorded, on_a_card=capacity_bytes is not None
    )
    result = _result(recording, lane, trial, out_of_memory, notes)
    print_json(result) if options.json else _print(result)
    return DONE


def _capacity(text: str | None) -> int | None:
    if text is None:
        return None
    capacity_bytes = parse_bytes(text)
    if capacity_bytes <= 0:
        raise SpecError(f"--capacity {text} is not possible. Give what the allocator may reserve, such as 24GiB.")
    return capacity_bytes


def _version(text: str) -> tuple[int, int]:
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isdecimal() and len(part) < 5 for part in parts[:2]) or int(parts[0]) < 2:
        raise SpecError(f"--torch {text} is not a version that is modelled. Write 2.0 to {NEWEST[0]}.{NEWEST[1]}.")
    return int(parts[0]), int(parts[1])


def _config(known: AllocatorConfig, alloc_conf: str | None, version: tuple[int, int] | None) -> AllocatorConfig:
    version = version or known.torch_version
    return replace(known, torch_version=min(version, NEWEST)) if alloc_conf is None else AllocatorConfig.parse(alloc_conf, version)


def _told(trace: Trace, num_replays: int, progress: Callable[[float], None] | None) -> Trace:
    """Return the trace, which tells how far this many replays of it are."""
    if progress is None:
        return trace
    num_steps, done = num_replays * sum(1 for _ in trace.steps()), 0

    def count(num_more: int) -> None:
        nonlocal done
        done += num_more
        progress(min(done / num_steps, 1.0))

    return CountedTrace(trace.kind, trace.key, trace.bytes, trace.stream, trace.source_row, count)


def _failure(recording: Recording, timeline: Timeline, trace: Trace, trial: Trial) -> dict[str, Any]:
    """Return where memory ran out in a replay, why, and what would have helped."""
    assert trial.capacity_bytes is not None, "without a limit nothing runs out"
    why = explain_out_of_memory(trace, trial.config, trial.capacity_bytes)
    assert why is not None, "the same replay runs out again"
    return {**_numbers(why), **failure_facts(recording, timeline, trace, why.row), **_helps(why), "explanation": why.sentences()}


def _recorded_failure(found: RecordedFailure | None) -> dict[str, Any] | None:
    """Return where memory ran out in the recorded run, why, and what would have helped; the numbers of a replay where it fails alike."""
    if found is None:
        return None
    known = {name: getattr(found, name) for name in ("capacity_bytes", "reserved_bytes", "device_free_bytes")}
    why = found.explanation
    explained = {**_numbers(why), **_helps(why)} if why else {}
    return {**known, **explained, **found.facts, "explanation": found.sentences()}


def _numbers(why: Explanation) -> dict[str, int]:
    names = ("requested_bytes", "segment_bytes", "capacity_bytes", "reserved_bytes", "allocated_bytes", "largest_free_bytes")
    return {name: getattr(why, name) for name in (*names, "smallest_capacity_bytes")}


def _helps(why: Explanation) -> dict[str, Any]:
    """Return what was free and of no use, and the settings that let it pass."""
    return {
        "unusable": [{"why": share.why.value, "bytes": share.bytes, "num_blocks": share.num_blocks} for share in why.unusable],
        "remedies": [{"alloc_conf": tried.name, "peak_reserved_bytes": tried.peak_reserved_bytes} for tried in why.remedies],
    }


def _result(recording: Recording, lane: Lane, trial: Trial, oom: dict[str, Any] | None, notes: list[str]) -> dict[str, Any]:
    at_peak = trial.at_peak
    return {
        "title": recording.metadata.title,
        "lane": lane.label,
        "provenance": Provenance.SIMULATED.value,
        "settings": trial.name,
        "torch": ".".join(map(str, trial.config.torch_version)),
        "capacity_bytes": trial.capacity_bytes,
        **{name: getattr(trial, name) for name in (*_PEAKS, "num_segment_allocs", "num_retries")},
        "fragmentation": {
            "external": at_peak.external,
            "internal": at_peak.internal,
            "reserved_bytes": at_peak.reserved_bytes,
            "allocated_bytes": at_peak.allocated_bytes,
            "requested_bytes": at_peak.requested_bytes,
            "inactive_split_bytes": at_peak.inactive_split_bytes,
        },
        "oom": oom,
        "ignored_options": list(trial.config.ignored),
        "notes": notes,
    }


def _print(result: dict[str, Any]) -> None:
    print(f"{result['title']}, {result['lane']}  [{result['provenance']}: {result['settings']}, torch {result['torch']}]")
    for name in _PEAKS:
        label = name.removesuffix("_bytes").replace("_", " ").capitalize()
        print(f"{label:<16} {format_bytes(result[name]):>10}  {exact_bytes(result[name])}")
    shares = result["fragmentation"]
    print(f"When reserved first was at its peak, {shares['external']:.1%} of it held no tensor.")
    print(f"Rounding and slack took {shares['internal']:.2%} of allocated then.")
    split = format_bytes(shares["inactive_split_bytes"])
    print(f"Inactive split was {split}: free in segments that are partly in use, which cannot go back to the driver.")
    print(f"{result['num_segment_allocs']:,} segments from the driver, {result['num_retries']:,} retries")
    if result["oom"]:
        oom = result["oom"]
        where = " · ".join(str(oom[name]) for name in ("phase", "module", "operator") if oom[name])
        print(f"Out of memory at event {oom['event']:,}, step {oom['step']}, {where}")
        for sentence in oom.get("explanation", []):
            print(f"  {sentence}")
        _print_alive("by category", {Category[name].label: num_bytes for name, num_bytes in oom["categories_alive"].items()})
        _print_alive("by module or call", oom["modules_alive"])
    for note in result["notes"]:
        print(f"Note: {note}")


def _print_alive(how: str, alive: dict[str, int]) -> None:
    """Print who held most when memory ran out."""
    if alive:
        print(f"  Alive {how}:")
    for name, num_bytes in sorted(alive.items(), key=lambda item: -item[1])[:_MAX_ALIVE]:
        print(f"    {format_bytes(num_bytes):>10}  {name}")

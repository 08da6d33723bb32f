"""How long a recording of a million events takes to analyse, draw and refine, beside a plain pandas way.

    python benchmarks/timeline_scale.py [--events 1000000] [--json]

Times are the least of three runs in milliseconds on one core. The pandas column does the same work the plain way: a frame of signed sizes,
grouped by category and cumulated, which draws every event.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from profiler.analysis.attribution import alive_at, module_tree, top_allocations
from profiler.analysis.blocks import Blocks
from profiler.analysis.layout import layout_of
from profiler.analysis.summary import summarize
from profiler.analysis.timeline import Timeline
from profiler.analysis.view import view_blocks
from profiler.figures.modules import module_figure
from profiler.figures.payload import blocks_payload
from profiler.figures.timeline import timeline_figure
from profiler.recording import Recording
from tests.builders import synthetic_recording

_REPEATS = 3


def main() -> None:
    """Measure and print a table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = measure(synthetic_recording(arguments.events))
    if arguments.json:
        print(json.dumps({"num_events": arguments.events, **results}, indent=1))
        return
    print(f"{arguments.events:,} events")
    for name, milliseconds in results["milliseconds"].items():
        print(f"{name:<46}{milliseconds:>9.1f} ms")
    for name, size in results["bytes"].items():
        print(f"{name:<46}{size:>9,} bytes")


def measure(recording: Recording) -> dict[str, Any]:
    """Return ``milliseconds`` by what was done, and ``bytes`` of the messages to the browser."""
    times: dict[str, float] = {}
    blocks = _timed(times, "read blocks and classify", lambda: Blocks.of(recording))
    timeline = _timed(times, "timeline", lambda: Timeline.of(recording, blocks))
    picked = _timed(times, "pick 2,000 rows", lambda: timeline.pick_rows(axis="time"))
    _timed(times, "by category, first", lambda: Timeline.of(recording, blocks).by_category(picked.rows))
    _timed(times, "everything before the first paint", lambda: _all(recording))
    _timed(times, "the same in plain pandas", lambda: _in_pandas(recording, blocks))
    _timed(times, "by category, again", lambda: timeline.by_category(picked.rows))
    _timed(times, "summary", lambda: summarize(recording, timeline))
    figure = _timed(times, "timeline figure", lambda: timeline_figure(timeline, picked).to_json())
    _timed(times, "layout by address, once", lambda: layout_of(Timeline.of(recording, blocks), "address"))
    _timed(times, "layout by first fit, once", lambda: layout_of(Timeline.of(recording, blocks), "stacked"))
    view_blocks(timeline)
    full = _timed(times, "block view and payload, whole recording", lambda: blocks_payload(timeline, view_blocks(timeline)))
    start, end = 0.4 * timeline.num_events, 0.42 * timeline.num_events
    _timed(times, "block view and payload, refined", lambda: blocks_payload(timeline, view_blocks(timeline, start, end)))
    peak = timeline.peak_event
    _timed(times, "alive at the peak", lambda: alive_at(timeline, peak))
    icicle = _timed(times, "module tree and icicle", lambda: module_figure(module_tree(timeline, peak)).to_json())
    _timed(times, "search all blocks", lambda: top_allocations(timeline, "h.3 activation"))
    sizes = {"timeline figure": len(figure), "block view": len(full), "icicle": len(icicle)}
    return {"milliseconds": times, "bytes": sizes}


def _all(recording: Recording) -> object:
    timeline = Timeline.of(recording)
    return timeline.by_category(timeline.pick_rows(axis="time").rows)


def _in_pandas(recording: Recording, blocks: Blocks) -> int:
    """Total by category at every event, the plain way; categories are taken as given."""
    frame = recording.events.select(["action", "requested_bytes", "block"]).to_pandas()
    born = frame["action"].isin(["alloc", "preexisting"])
    category = pd.Series(blocks.category, index=frame.loc[born, "block"])
    frame["category"] = frame["block"].map(category)
    frame["change"] = np.where(born, frame["requested_bytes"], -frame["requested_bytes"])
    wide = frame.pivot_table(index=frame.index, columns="category", values="change", aggfunc="sum", fill_value=0).cumsum()
    return int(wide.sum(axis=1).max())


def _timed(times: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    least = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        result = work()
        least = min(least, time.perf_counter() - began)
    times[name] = round(1000 * least, 1)
    return result


if __name__ == "__main__":
    main()

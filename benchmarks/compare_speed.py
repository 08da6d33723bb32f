"""How soon a combination that nobody asked for before is there: ``python -m benchmarks.compare_speed [--json]``.

Llama-3-8B on an RTX 4090, one toggle more at a time, each combination asked for as the Compare page does: with workers forked from a
process that has the libraries loaded, and the store as it is by then. Seconds of the clock: *asked* until the combination's footprint is
there, *all* until every run alone and of the waterfall is there too. The last row asks for the same again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from profiler.jobs.comparing import ComparisonRuns
from profiler.jobs.manager import JobManager
from profiler.jobs.run import SIMULATE
from profiler.planner.comparison import Comparison, parse_toggles
from profiler.spec import Job, Model, Workload

BASELINE = Job(model=Model(name="llama-3-8b"), workload=Workload(batch=1, seq=2048, steps=1), device="rtx-4090")
LADDER = ("bfloat16", "checkpointing", "adamw-8bit", "lora")
_POLL_SECONDS = 0.02


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        manager = JobManager(Path(home))
        try:
            manager.warm_up()
            _ask(manager, ())  # waits for the libraries, and makes the baseline known
            rows = [_ask(manager, LADDER[:number]) for number in range(1, len(LADDER) + 1)]
            rows.append(_ask(manager, LADDER))
        finally:
            manager.close()
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        print(f"asked {row['asked_seconds']:6.2f} s  all {row['all_seconds']:6.2f} s  {row['runs']:>2} runs  {' '.join(row['toggles'])}")
    return 0


def _ask(manager: JobManager, toggles: tuple[str, ...]) -> dict[str, object]:
    began = time.monotonic()
    comparison = Comparison(baseline=BASELINE, toggles=parse_toggles(toggles))
    runs = ComparisonRuns(manager, comparison, SIMULATE)
    asked = None
    while not runs.ended:
        if comparison.asked in runs.advance().footprints and asked is None:
            asked = time.monotonic() - began
        time.sleep(_POLL_SECONDS)
    seconds = time.monotonic() - began
    found = runs.compared().footprints
    return {"toggles": toggles, "asked_seconds": asked or seconds, "all_seconds": seconds, "runs": len(found)}


if __name__ == "__main__":
    sys.exit(main())

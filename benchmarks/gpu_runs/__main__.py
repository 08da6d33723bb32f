"""Runs recorded on real GPUs beside our predictions, byte for byte; exit code 1 where a target is missed.

    python -m benchmarks.gpu_runs FILE [--only ID] [--json]

Rules are keyed by the library versions that a run recorded, never by the run: where the installed version does otherwise, the rule that was
applied instead is named.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.gpu_runs import evidence, steps  # noqa: E402
from benchmarks.gpu_runs.schema import Comparison, Run, read_runs  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Print the comparisons as text or JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", action="append", metavar="ID")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="keep the comparisons as the evidence that every simulation is shown with")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not chosen.file.is_file():
        parser.error(f"{chosen.file} is not there. Name a file of recorded runs.")
    runs = [run for run in read_runs(chosen.file) if not chosen.only or run["id"] in chosen.only]
    comparisons = []
    for run in runs:
        comparisons.append(_compare(run))
        if not chosen.json:
            _print(comparisons[-1])
    if chosen.write:
        evidence.write(comparisons, json.loads(chosen.file.read_text(encoding="utf-8"))["source"])
    failing = [comparison for comparison in comparisons if comparison.missed]
    if chosen.json:
        print(json.dumps([comparison.to_json() for comparison in comparisons], indent=1))
    else:
        possible = [comparison for comparison in comparisons if comparison.off and not comparison.missed]
        within = len(comparisons) - len(possible) - len(failing)
        others = f" {len(possible)} more are one of the loads that threads make possible." if possible else ""
        print(f"{len(comparisons)} runs: {within} within their targets, {len(failing)} not.{others}")
    return 1 if failing else 0


def _compare(run: Run) -> Comparison:
    """Simulate a run as the schema that it is recorded in tells."""
    if "peak_forward_bytes" in run["measured_bytes"]:
        from benchmarks.gpu_runs import phases

        return phases.compare(run)
    if "job" in run:
        from benchmarks.gpu_runs import jobs

        return jobs.compare(run)
    return steps.compare(run)


def _print(comparison: Comparison) -> None:
    run = comparison.run
    print(f"{run['id']}  {run['model']}, {run['workload']}, {run['gpu']}  ({comparison.seconds:.1f} s)")
    for name, difference in comparison.differences.items():
        verdict = "  missed" if name in comparison.missed else ""
        spread = comparison.spreads.get(name)
        if spread is not None:
            verdict = f"  of {spread.num_loads} loads {spread.lowest:,} to {spread.highest:,}, {spread.num_equal} equal{verdict}"
        print(f"    {name:<16} {comparison.predicted[name]:>16,} {comparison.measured[name]:>16,} {difference:>+14,}{verdict}")
    for rule in comparison.rules:
        print(f"    rule: {rule}")
    if comparison.explanation:
        print(f"    {comparison.explanation}")


if __name__ == "__main__":
    raise SystemExit(main())

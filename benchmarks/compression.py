"""What each technique gives on a model of the lab, with five seeds and their spread: ``python -m benchmarks.compression [--json]``.

Each experiment runs in a process of its own on one thread; results are kept in the run store, so a benchmark can go on. Bytes and
the losses of techniques without chance do not depend on the seed, which is only of training; times are processor seconds against the
untouched model's, taken in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

from profiler.compression.experiment import Experiment
from profiler.compression.registry import PIPELINES
from profiler.compression.result import Result
from profiler.errors import HeadroomError
from profiler.jobs.experiments import measure_in_worker

CASES: tuple[tuple[str, ...], ...] = (
    ("bfloat16",),
    ("float16",),
    ("int8-weight-only",),
    ("int8-dynamic",),
    ("float8-weight-only",),
    ("intx-weight-only:bits=4",),
    ("intx-weight-only:bits=2",),
    ("int4-weight-only",),
    ("packed-int:bits=8",),
    ("packed-int:bits=4",),
    ("packed-int:bits=2,group=32",),
    ("packed-int:bits=1,group=32",),
    ("nf4",),
    ("dynamic-int8",),
    ("dynamic-float16",),
    ("static-int8",),
    *((f"prune-global:amount={share}",) for share in (0.3, 0.5, 0.7, 0.8, 0.9)),
    *((f"prune-global:amount={share}", "fine-tune") for share in (0.5, 0.7, 0.8, 0.9)),
    ("prune-2-4",),
    ("prune-2-4", "fine-tune", "store-2-4"),
    ("prune-global:amount=0.5", "store-csr"),
    ("prune-global:amount=0.7", "store-csr:index=int64,tight=false"),
    ("prune-global:amount=0.7", "store-coo"),
    ("prune-global:amount=0.7", "store-bitmask"),
    ("prune-structured:amount=0.25",),
    ("prune-structured:amount=0.5",),
    ("prune-structured:amount=0.5", "fine-tune"),
    *((f"low-rank:rank={rank}",) for rank in (16, 32, 48, 64)),
    ("low-rank:rank=32", "fine-tune"),
    ("layer-drop",),
    ("layer-drop", "fine-tune"),
    ("lora-merge",),
    ("distill",),
    ("zstd",),
    ("huffman",),
    ("ans",),
    ("bfloat16", "ans"),
    *((f"k-means:bits={bits}", coder) for bits in (8, 5, 4, 3) for coder in ("fixed", "huffman", "ans")),
    *((name,) for name in PIPELINES),
)
_CHANCE = {"fine-tune", "distill", "lora-merge"}
"""Techniques whose result the seed changes."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="lab")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for stages in CASES:
        try:
            rows.append(_row(options.model, stages, options.seeds))
        except HeadroomError as error:
            print(f"{' + '.join(stages)}: {error}", file=sys.stderr)
            continue
        if not options.json:
            _print(rows[-1], first=len(rows) == 1)
    if options.json:
        print(json.dumps(rows, indent=1))
    return 0


def _row(model: str, stages: tuple[str, ...], num_seeds: int) -> dict[str, Any]:
    experiment = Experiment.of(model, stages)
    chance = any(technique.name in _CHANCE for technique in experiment.techniques)
    found = [measure_in_worker(Experiment.of(model, stages, seed=seed)) for seed in range(num_seeds if chance else 1)]
    controls = [stage.extra["control_loss"] for result in found for stage in result.stages if "control_loss" in stage.extra]
    return {
        "technique": experiment.technique,
        "seeds": len(found),
        **{name: found[0].ratio(f"{name}_bytes") for name in ("held", "resident", "file")},
        "exact_file": all(result.exact_file for result in found),
        "loss_gain": _spread([result.quality.loss - result.baseline_quality.loss for result in found]),
        "control_gain": _spread([loss - found[0].baseline_quality.loss for loss in controls]) if controls else None,
        "time": _spread([result.seconds / result.baseline_seconds for result in found]),
        "agreement": _spread([result.agreement for result in found]),
        "conversion_peak": _peak(found[0]),
        "conversion_seconds": statistics.median(result.conversion_seconds for result in found),
    }


def _peak(result: Result) -> float:
    return result.conversion_peak_bytes / result.baseline_size.held_bytes


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "low": min(values), "high": max(values)}


def _print(row: dict[str, Any], *, first: bool) -> None:
    if first:
        print(f"{'held':>6} {'RSS':>6} {'file':>6} {'loss':>9} {'lowest..highest':>18} {'control':>9} {'time':>6} {'peak':>6}  technique")
    loss, control = row["loss_gain"], row["control_gain"]
    spread = f"{loss['low']:+.4f}..{loss['high']:+.4f}" if row["seeds"] > 1 else ""
    print(
        f"{row['held']:>6.3f} {row['resident']:>6.2f} {row['file']:>6.3f} {loss['mean']:>+9.4f} {spread:>18}"
        f" {control['mean'] if control else 0.0:>+9.4f} {row['time']['mean']:>6.2f} {row['conversion_peak']:>6.1f}  {row['technique']}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())

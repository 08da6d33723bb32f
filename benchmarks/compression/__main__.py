"""What each technique gives on a model of the lab, with several seeds and their spread.

    python -m benchmarks.compression [--model NAME] [--seeds N] [--workers N] [--kept] [--json] [--markdown FILE] [--publish]

Each experiment runs in a process of its own on one thread; results are kept in the run store, so a benchmark can go on. Bytes, and the
losses of techniques that see no training batches, do not depend on the seed. Times are processor seconds beside the untouched model's, in
turns.
``--kept`` measures nothing: it takes the newest result of each experiment on the same weights, whichever version of Headroom measured it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.compression.cases import cases, seeds_of
from benchmarks.compression.rows import Row
from profiler.compression import published
from profiler.compression.experiment import Experiment
from profiler.compression.lab import MODELS
from profiler.compression.result import Result, ResultStore
from profiler.devices import this_machine
from profiler.jobs.experiments import WORKERS, measure_each

PUBLISHED, REAL = "lab", "smollm2"
"""The models that the page is about: a small one, and a real one beside it."""
PAGE = Path(__file__).parents[2] / "docs" / "compression-results.md"
"""The published page."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page where one is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the rows as one JSON value")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the page of results")
    parser.add_argument("--publish", action="store_true", help="also write the published page, and what pages expect of techniques")
    parser.add_argument("--model", default=PUBLISHED, help=f"a model of the lab (default: {PUBLISHED})")
    parser.add_argument("--seeds", type=int, default=5, help="of what is trained (default: 5)")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"experiments at a time (default: {WORKERS})")
    parser.add_argument("--kept", action="store_true", help="measure nothing: take what the store has")
    options = parser.parse_args(arguments)
    if options.publish and options.model != PUBLISHED:
        parser.error(f"--publish is for the model {PUBLISHED!r}; what is kept of the others joins it.")
    groups = [seeds_of(experiment, options.seeds) for experiment in cases(options.model)]
    measured = _kept(options.model) if options.kept else _measured(groups, options.workers)
    rows = _rows(groups, measured)
    print(json.dumps([asdict(row) for row in rows], indent=1) if options.json else _text(rows))
    paths = [path for path in (options.markdown, PAGE if options.publish else None) if path]
    if not paths:
        return 0
    real, others = _real(), _others(options.seeds)
    text = _page(rows, real, others, next(iter(measured.values())))
    for path in paths:
        path.write_text(text, encoding="utf-8")
    if options.publish:
        known = {name: _known(of_model) for name, of_model in {PUBLISHED: rows, REAL: real, **others}.items()}
        published.PATH.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return 0


def _rows(groups: Sequence[Sequence[Experiment]], measured: Mapping[Experiment, Result]) -> list[Row]:
    """Return a row for each experiment of which any seed was measured."""
    results = [[measured[one] for one in group if one in measured] for group in groups]
    return [Row.of(found) for found in results if found]


def _measured(groups: Sequence[Sequence[Experiment]], num_workers: int) -> dict[Experiment, Result]:
    """Return what each experiment gives; those that fail are told and left out. Controls come first, as they are listed."""
    found: dict[Experiment, Result] = {}
    for one, result in measure_each([one for group in groups for one in group], workers=num_workers):
        if isinstance(result, Result):
            found[one] = result
        print(f"{one.title}: {f'loss {found[one].quality.loss:.4f}' if one in found else result}", file=sys.stderr, flush=True)
    return found


def _kept(model: str) -> dict[Experiment, Result]:
    found: dict[Experiment, Result] = {}
    for result in ResultStore().list():
        if result.experiment.model == model:
            found.setdefault(result.experiment, result)
    return found


def _text(rows: Sequence[Row]) -> str:
    return "\n".join(_lines(rows))


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    yield f"{'held':>6} {'file':>6} {'loss':>9} {'lowest..highest':>18} {'control':>9} {'time':>6} {'peak':>6}  technique"
    for row in rows:
        loss, control = row.loss_gain, row.control_gain
        spread = f"{loss.low:+.4f}..{loss.high:+.4f}" if row.num_seeds > 1 else ""
        told = f"{control.mean:+.4f}" if control else ""
        yield (
            f"{row.held:>6.3f} {row.file:>6.3f} {loss.mean:>+9.4f} {spread:>18} {told:>9} {row.time.mean:>6.2f} {row.conversion_peak:>6.1f}"
            f"  {row.technique}"
        )


def _page(rows: Sequence[Row], real: Sequence[Row], others: Mapping[str, Sequence[Row]], one: Result) -> str:
    """Return the page; counting the trial's bytes takes some seconds and torch."""
    from benchmarks.compression.page import page
    from benchmarks.compression.trial import figures

    machine, versions = this_machine(), one.versions
    surroundings = {"one thread of": machine.cpu} | {
        name: versions[name] for name in ("torch", "torchao", "transformers") if name in versions
    }
    return page(rows, real, figures(), surroundings, others)


def _real() -> list[Row]:
    """Return what is kept of the real model, on which more than the default lab is too slow."""
    return sorted((Row.of([result]) for result in _kept(REAL).values()), key=lambda row: row.technique)


def _others(num_seeds: int) -> dict[str, list[Row]]:
    """Return what is kept of the lab's other models, by their names."""
    names = [name for name in MODELS if name not in (PUBLISHED, REAL)]
    found = {name: _rows([seeds_of(experiment, num_seeds) for experiment in cases(name)], _kept(name)) for name in names}
    return {name: rows for name, rows in found.items() if rows}


def _known(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return what `profiler.compression.published` reads."""
    return {
        row.technique: {
            "loss_gain": round(row.loss_gain.mean, 6),
            "time_ratio": round(row.time.mean, 3),
            "held_share": round(row.held, 6),
            "file_share": round(row.file, 6),
        }
        for row in rows
    }


if __name__ == "__main__":
    sys.exit(main())

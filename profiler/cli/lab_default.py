"""``compress --all``: the default lab, a line for each experiment as it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from profiler.cli.command import DONE, FAILED_RUN, print_json, show_progress
from profiler.compression.default_lab import default_lab
from profiler.compression.experiment import Experiment
from profiler.compression.result import Result
from profiler.compression.target import loss_gain
from profiler.errors import HeadroomError, SpecError
from profiler.jobs.experiments import measure_each
from profiler.jobs.lab_runs import LabStatus

MOST_WORKERS = 64


def run(model: str, workers: int, *, fresh: bool, as_json: bool, progress: Callable[[LabStatus[Any]], None]) -> int:
    """Measure the default lab on a model and print it; what fails is told and the rest goes on.

    Raises:
        SpecError: there cannot be so many workers.
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise SpecError(f"--workers {workers} is not possible. Use a whole number from 1 to {MOST_WORKERS}.")
    began = time.monotonic()
    results, failures = list[Result](), dict[str, str]()
    for experiment, found in measure_each(default_lab(model), workers=workers, fresh=fresh, progress=progress):
        if isinstance(found, Result):
            results.append(found)
        else:
            failures[experiment.technique] = str(found)
        if not as_json:
            _print(experiment, found, first=len(results) + len(failures) == 1)
    seconds = time.monotonic() - began
    if as_json:
        print_json({"model": model, "seconds": seconds, "results": [result.facts() for result in results], "failures": failures})
    else:
        print(f"{len(results)} experiments in {seconds:.0f} s; {len(failures)} failed.")
    return FAILED_RUN if failures else DONE


def _print(experiment: Experiment, found: Result | HeadroomError, *, first: bool) -> None:
    show_progress()
    if first:
        print(f"{'held':>6} {'file':>6} {'loss':>9} {'time':>6}  technique  [measured; shares of the untouched model's]")
    if isinstance(found, Result):
        shares = f"{found.ratio('held_bytes'):>6.3f} {found.ratio('file_bytes'):>6.3f}"
        print(f"{shares} {loss_gain(found):>+9.4f} {found.seconds / found.baseline_seconds:>6.2f}  {experiment.technique}", flush=True)
    else:
        print(f"{experiment.technique}: {found}", file=sys.stderr, flush=True)

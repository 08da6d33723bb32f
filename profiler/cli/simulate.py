"""``simulate``: a model's steps on a GPU that need not be here, or on the CPU, on tensors without memory."""

from __future__ import annotations

import argparse

from profiler.analysis.fit import Verdict, judge_fit
from profiler.analysis.summary import summarize
from profiler.cli.command import DONE, Commands, add_command, print_json, print_summary
from profiler.cli.job import add_job_options, read_job
from profiler.cli.running import add_run_options, run_job
from profiler.devices import find_gpu
from profiler.estimate.comparison import ComparedPeak, compare_estimates, estimates_for
from profiler.jobs.run import SIMULATE
from profiler.jobs.targets import DEFAULT_STEPS
from profiler.planner.validated import Nearest, nearest_run
from profiler.storage import read_recording
from profiler.units import exact_bytes, format_bytes

_CPU = "cpu"


def add(commands: Commands) -> None:
    """Declare the command."""
    simulate = add_command(commands, "simulate", _run, "predict the memory of a model's steps on a GPU, to the byte, without the GPU")
    add_job_options(simulate, DEFAULT_STEPS[SIMULATE])
    simulate.add_argument(
        "--gpu", required=True, metavar="NAME", help="a GPU such as rtx-4090, a100-80gb or h100-80gb; cpu for this machine's CPU"
    )
    add_run_options(simulate)


def _run(options: argparse.Namespace) -> int:
    gpu = None if options.gpu.lower() == _CPU else find_gpu(options.gpu)
    job, notes = read_job(options, gpu.name if gpu else _CPU)
    path, status = run_job(options, job, SIMULATE, "simulate")
    recording = read_recording(path)
    verdict = judge_fit(recording, gpu) if gpu else None
    summary = summarize(recording) | {"path": str(path), "from_store": status.from_store} | ({"notes": notes} if notes else {})
    nearest = nearest_run(job, gpu.architecture, recording.metadata.versions) if gpu else None
    rows = compare_estimates(estimates_for(recording.metadata.facts["num_parameters"], job), [summary])
    if options.json:
        found = {"verdict": verdict, "validated_against": nearest}
        data = {name: None if value is None else value.to_json() for name, value in found.items()}
        print_json(summary | data | {"formulas": [row.to_json() for row in rows]})
    else:
        print_summary(summary, status.message)
        _print_prediction(summary["peak_reserved_bytes"], verdict, nearest)
        _print_formulas(rows)
    return DONE


def _print_prediction(reserved_bytes: int | None, verdict: Verdict | None, nearest: Nearest | None) -> None:
    if reserved_bytes is not None:
        print(f"Peak reserved {format_bytes(reserved_bytes)} ({exact_bytes(reserved_bytes)})")
    for found in (verdict, nearest):
        for sentence in found.sentences() if found else ():
            print(sentence)


def _print_formulas(rows: list[ComparedPeak]) -> None:
    print("The peak, by")
    for row in rows:
        error = "" if row.error_percent is None else f"{row.error_percent:+.1f} %"
        print(f"  {row.name:<32} {format_bytes(row.peak_bytes):>10} {error:>10}  [{row.provenance}]")

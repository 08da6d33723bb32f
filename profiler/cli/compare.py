"""``compare``: what each toggle saves on a baseline: alone, one after the other, together, measured or simulated."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from profiler.analysis.budgets import Budgets, Tier
from profiler.analysis.footprint import Footprint
from profiler.cli.command import DIFFERS, DONE, Commands, add_command, output_path, print_json, require, show_progress
from profiler.cli.job import add_job_options, read_job
from profiler.cli.reading import read_file
from profiler.devices import find_gpu
from profiler.errors import JobFailed, SpecError, StorageError
from profiler.jobs.comparing import ComparisonRuns
from profiler.jobs.manager import JobManager
from profiler.jobs.run import CAPTURE, SIMULATE, Limits, RunState, provenance_of
from profiler.jobs.targets import CPU
from profiler.optimizations.registry import families
from profiler.planner.comparison import Compared, Comparison, knows_host, name_of, parse_toggles
from profiler.recording import Provenance
from profiler.spec import Job
from profiler.units import exact_bytes, format_bytes, format_duration_us, parse_bytes, parse_share

_POLL_SECONDS = 0.1
_ENGINES = {"measured": CAPTURE, "simulated": SIMULATE}


def add(commands: Commands) -> None:
    """Declare the command."""
    command = add_command(commands, "compare", _run, "say what each toggle saves on a baseline: alone, in order and all together")
    add_job_options(command, steps=None)
    command.add_argument("--with", action="append", default=[], dest="base", metavar="NAME[:key=value]", help="a toggle of the baseline")
    command.add_argument("--engine", choices=_ENGINES, help="(default simulated with --gpu, else measured on this CPU)")
    command.add_argument("--device", default=CPU, help="where to measure: cpu, cuda or cuda:N (default cpu)")
    command.add_argument("--gpu", metavar="NAME", help="the GPU to simulate, such as rtx-4090; cpu for this machine's CPU")
    command.add_argument("--sweep", metavar="FAMILY", help=f"try every toggle of a family alone: {', '.join(f.name for f in families())}")
    command.add_argument(
        "--budget", metavar="SIZE", help="exit 4 if the run with all toggles, or one of a sweep, needs more, such as 24GiB"
    )
    command.add_argument("--host-budget", metavar="SIZE", help="the same for what a simulated GPU's run holds on the host")
    command.add_argument("--baseline", type=Path, metavar="FILE", help="a recording: exit 4 if the same needs more than it")
    command.add_argument("--tolerance", default="0%", metavar="SHARE", help="how much more than --baseline is allowed (default 0%%)")
    command.add_argument("--report", type=Path, metavar="FILE", help="also write one HTML file that opens without a network")
    command.add_argument("--time-limit", type=float, default=Limits().seconds, metavar="SECONDS", help="of each run")


def _run(options: argparse.Namespace) -> int:
    comparison, engine = _comparison(options)
    report = output_path(options.report, ".html") if options.report else None
    budgets = _budgets(options, comparison)
    allowed_bytes = _allowed_by_baseline(options)
    for library in ("torch", "transformers"):
        require(library, "compare")
    compared = replace(_compared(comparison, engine, Limits(seconds=options.time_limit)), budgets=budgets)
    if options.json:
        print_json(compared.to_json())
    else:
        _print(compared)
    if report is not None:
        _write_report(report, compared)
    exceeded = _exceeded(compared, allowed_bytes)
    for sentence in exceeded:
        print(f"headroom: {sentence}", file=sys.stderr)
    return DIFFERS if exceeded else DONE


def _budgets(options: argparse.Namespace, comparison: Comparison) -> Budgets:
    """Return the budgets of both memories.

    Raises:
        SpecError: a size is none, or the host has a budget where its bytes are not known.
    """
    device_bytes, host_bytes = (parse_bytes(text) if text else None for text in (options.budget, options.host_budget))
    if host_bytes is not None and not knows_host(comparison.baseline, comparison.engine):
        raise SpecError(
            "--host-budget is held against a simulated GPU's run: torch reports no pinned memory of a real one, and a CPU has one memory. "
            "Name a GPU with --gpu, or use --budget."
        )
    return Budgets(device_bytes=device_bytes, host_bytes=host_bytes)


def _allowed_by_baseline(options: argparse.Namespace) -> int | None:
    """Return what may be allocated as the recording of ``--baseline`` and its tolerance say; None without one."""
    if options.baseline is None:
        return None
    before = Footprint.of(read_file(options.baseline)).peak_bytes
    return before + int(before * parse_share(options.tolerance))


def _comparison(options: argparse.Namespace) -> tuple[Comparison, str]:
    engine = _ENGINES[options.engine] if options.engine else SIMULATE if options.gpu else CAPTURE
    if engine == CAPTURE and options.gpu:
        raise SpecError("--gpu is simulated, and --engine measured measures. Leave one out; --device cuda measures on this machine's GPU.")
    toggles, options.toggle = parse_toggles(options.toggle), options.base
    device = options.device
    if engine == SIMULATE:
        device = CPU if options.gpu is None or options.gpu.lower() == CPU else find_gpu(options.gpu).name
    options.steps = options.steps or (1 if engine == SIMULATE else 5)
    baseline, _ = read_job(options, device)
    if options.sweep is None:
        return Comparison(baseline=baseline, toggles=toggles, engine=provenance_of(engine)), engine
    if toggles:
        raise SpecError("--sweep tries every toggle of a family, and --toggle names some. Leave one out.")
    return _sweep(baseline, options.sweep, provenance_of(engine)), engine


def _sweep(baseline: Job, name: str, engine: Provenance) -> Comparison:
    family = next((family for family in families() if family.name == name), None)
    if family is None:
        raise SpecError(f"There is no family {name!r}. Use one of {', '.join(family.name for family in families())}.")
    return Comparison.of_family(baseline, family, engine)


def _compared(comparison: Comparison, engine: str, limits: Limits) -> Compared:
    """Return the comparison once all of its runs are over; an interrupt cancels them.

    Raises:
        SpecError: the baseline or the waterfall is not possible.
        JobFailed: a run gave no result.
    """
    manager = JobManager()
    runs = None
    try:
        runs = ComparisonRuns(manager, comparison, engine, limits=limits)
        compared = runs.advance()
        while not runs.ended:
            show_progress(f"{sum(run.ended for run in runs.runs.values())} of {len(runs.runs)} runs")
            time.sleep(_POLL_SECONDS)
            compared = runs.advance()
    except KeyboardInterrupt:
        if runs is not None:
            runs.cancel()
        raise
    finally:
        manager.close()
        show_progress()
    needed = ((), *comparison.steps)
    failed = [run for run in runs.runs.values() if run.switched in needed and run.state is not RunState.DONE]
    if failed:
        kind = SpecError if any(run.status and run.status.refused for run in failed) else JobFailed
        raise kind(f"The run with {name_of(failed[0].switched)} gave no result: {failed[0].message}")
    return compared


def _write_report(path: Path, compared: Compared) -> None:
    from profiler.figures.report import report_html

    try:
        path.write_text(report_html(compared), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}. The runs are in the store; choose another --report.") from error


def _exceeded(compared: Compared, allowed_bytes: int | None) -> list[str]:
    """Return what to say of each limit that the run with all toggles is above, or a run of a sweep."""
    comparison = compared.comparison
    judged = [comparison.asked] if comparison.together else list(compared.footprints)
    found = []
    for switched in judged:
        footprint, name = compared.footprints[switched], name_of(switched)
        for verdict in compared.budgets.verdicts(footprint):
            need = "held on the host" if verdict.tier is Tier.HOST else "needed"
            if not verdict.fits:
                found.append(_too_much(verdict.needed_bytes, f"{need} with {name}", verdict.budget_bytes, verdict.tier.budget_name))
        if allowed_bytes is not None and footprint.peak_bytes > allowed_bytes:
            found.append(_too_much(footprint.peak_bytes, f"needed with {name}", allowed_bytes, "baseline"))
    return found


def _too_much(needed: int, how: str, limit: int, name: str) -> str:
    return f"{exact_bytes(needed)} are {how}, {format_bytes(needed - limit)} more than the {name} allows ({exact_bytes(limit)})."


def _print(compared: Compared) -> None:
    rows = compared.to_json()["runs"]
    shows_host = any(row["host_peak_bytes"] for row in rows)
    host = f" {'On the host':>12}" if shows_host else ""
    print(f"{'Run':<52} {'Peak allocated':>14}{host} {'Phase':>10} {'Step time':>12} {'Loss':>12}")
    for row in rows:
        seconds = row["cpu_seconds"] if row["cpu_seconds"] is not None else row["estimated_step_seconds"]
        time_text = "not measured" if seconds is None else format_duration_us(seconds * 1e6)
        loss = "not measured" if row["loss"] is None else f"{row['loss']:.4f}"
        name = " + ".join(row["toggles"]) or "baseline"
        host = f" {format_bytes(row['host_peak_bytes'] or 0):>12}" if shows_host else ""
        peak = format_bytes(row["peak_allocated_bytes"])
        print(f"{name:<52} {peak:>14}{host} {row['peak_at']['phase']:>10} {time_text:>12} {loss:>12}")
    if any(row["cpu_seconds"] for row in rows):
        print("Step time is processor time of this machine")
    elif any(row["estimated_step_seconds"] for row in rows):
        print("Step time is estimated")
    for saving in compared.savings:
        print(f"{saving.toggle:<52} {format_bytes(-saving.saved_bytes, signed=True):>14}")
    for sentences in compared.explanations().values():
        print(" ".join(sentences))
    for name, reason in compared.to_json()["refused"].items():
        print(f"Not run, {name}: {reason}")

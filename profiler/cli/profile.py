"""``profile``: a model's steps, run in a worker process and recorded."""

from __future__ import annotations

import argparse

from profiler.analysis.summary import summarize
from profiler.cli.command import DONE, Commands, add_command, print_json, print_summary
from profiler.cli.job import add_device_option, add_job_options, named_device, read_job
from profiler.cli.running import add_run_options, run_job
from profiler.jobs.run import CAPTURE
from profiler.storage import read_recording


def add(commands: Commands) -> None:
    """Declare the command."""
    profile = add_command(commands, "profile", _run, "run a model's steps in a worker process and record their memory")
    add_job_options(profile)
    add_device_option(profile)
    add_run_options(profile)


def _run(options: argparse.Namespace) -> int:
    job, notes = read_job(options, named_device(options.device))
    path, status = run_job(options, job, CAPTURE, "profile")
    summary = summarize(read_recording(path)) | {"path": str(path), "from_store": status.from_store} | ({"notes": notes} if notes else {})
    print_json(summary) if options.json else print_summary(summary, status.message)
    return DONE

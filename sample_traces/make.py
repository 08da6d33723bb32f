"""Recipes -> the sample recordings and their README: ``python -m sample_traces.make``.

Each job runs in a worker process like any other run: for real on the CPU, or simulated where it names a GPU. What would tell about the
machine it ran on (its system's build, its free memory, the key that is made from its name) is taken out, since samples travel.
"""

from __future__ import annotations

import json
import tempfile
import textwrap
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from profiler.analysis.summary import summarize
from profiler.errors import JobFailed
from profiler.jobs.manager import JobManager
from profiler.jobs.run import RunState
from profiler.jobs.targets import engine_of
from profiler.optimizations.registry import validate
from profiler.recording import Category, Recording
from profiler.spec import Job
from profiler.storage import SUFFIX, read_recording, write_recording
from profiler.units import exact_bytes, format_bytes
from sample_traces.recipes import RECIPES, Recipe

FOLDER = Path(__file__).resolve().parent
README = FOLDER / "README.md"
_HOST_FACTS = ("cpu", "num_cores", "python")
_POLL_SECONDS = 0.2
_LINE_LENGTH = 140

_HEAD = """# Sample recordings

Small recordings that Headroom made of real runs on a CPU, or simulated where the job names a GPU; the Start page shows them. `make samples`
makes them, and this page, again from `recipes.py`. Each job below is all that a run needs: its fields are the options of
`python -m profiler profile` (`simulate` where there is a device, which is its `--gpu`) with the same names, its toggles are `--toggle`, and
what is not named has its default. Sizes in the texts are those at the peak.
`python -m profiler show sample_traces/7-adamw.headroom` prints one's facts.

Their metadata names no host and no path; times and resident sets are those of the machine they were made on.
"""


def main() -> None:
    """Record every recipe, replace the files, and write the README."""
    summaries = {}
    with tempfile.TemporaryDirectory() as home:
        manager = JobManager(home)
        try:
            for recipe in RECIPES:
                recording = write_recording(publishable(_run(manager, recipe.job), recipe), path_of(recipe))
                summaries[recipe.name] = summarize(recording)
                peak_bytes, size_bytes = summaries[recipe.name]["peak_allocated_bytes"], path_of(recipe).stat().st_size
                print(f"{recipe.name:<20} peak {format_bytes(peak_bytes):>9}, file {format_bytes(size_bytes):>9}", flush=True)
        finally:
            manager.close()
    README.write_text(render_readme(summaries), encoding="utf-8")


def path_of(recipe: Recipe) -> Path:
    """Return the file of a sample."""
    return FOLDER / f"{recipe.name}{SUFFIX}"


def publishable(recording: Recording, recipe: Recipe) -> Recording:
    """Return the recording under the recipe's title and with its notice, without what tells of the machine."""
    metadata = recording.metadata
    host = {name: metadata.host[name] for name in _HOST_FACTS if name in metadata.host}
    facts = metadata.facts | {"notice": notice_of(recipe, summarize(recording))}
    return replace(recording, metadata=replace(metadata, title=recipe.title, host=host, key=None, facts=facts))


def notice_of(recipe: Recipe, summary: Mapping[str, Any]) -> str:
    """Return what to notice in a sample, with the figures of its recording."""
    return recipe.notice.format_map(_figures(summary))


def render_readme(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the README of these recordings' summaries, by the recipes' names."""
    return "\n".join([_HEAD, *(_section(recipe, summaries[recipe.name]) for recipe in RECIPES)])


def short_json(job: Job) -> dict[str, Any]:
    """Return the job as plain data without what is at its default; `Job.from_json` reads it."""
    data, default = job.to_json(), Job(model=job.model).to_json()
    workload = {name: value for name, value in data["workload"].items() if value != default["workload"][name]}
    device = {} if data["device"] == default["device"] else {"device": data["device"]}
    return {"model": data["model"], "workload": workload, **device, "toggles": data["toggles"]}


def _run(manager: JobManager, job: Job) -> Recording:
    status = manager.submit(validate(job), fresh=True, engine=engine_of(job.device))
    while not status.state.final:
        time.sleep(_POLL_SECONDS)
        status = manager.status(status.run_id)
    if status.state is not RunState.DONE or status.recording_path is None:
        raise JobFailed(f"{job.title}: {status.message}")
    return read_recording(status.recording_path)


def _section(recipe: Recipe, summary: Mapping[str, Any]) -> str:
    peak_bytes, at = summary["peak_allocated_bytes"], summary["peak_at"]
    return f"""## {recipe.title}

`{path_of(recipe).name}` · peak {format_bytes(peak_bytes)} ({exact_bytes(peak_bytes)}) in step {at["step"]}, {at["phase"]}

```json
{json.dumps(short_json(recipe.job))}
```

{textwrap.fill(notice_of(recipe, summary), _LINE_LENGTH, break_on_hyphens=False)}
"""


def _figures(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return what a notice may name: the peak, what was reserved, and each category's bytes and share at the peak."""
    peak_bytes, at_peak = summary["peak_allocated_bytes"], summary["categories_at_peak"]
    figures = {"peak": format_bytes(peak_bytes), "reserved": format_bytes(summary["peak_reserved_bytes"] or 0)}
    for category in Category:
        num_bytes = at_peak.get(category.name, 0)
        figures[category.name.lower()] = format_bytes(num_bytes)
        figures[f"{category.name.lower()}_share"] = f"{100 * num_bytes / peak_bytes:.0f} %"
    return figures


if __name__ == "__main__":
    main()

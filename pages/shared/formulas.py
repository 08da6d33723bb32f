"""A job's peak by closed formulas, beside what was simulated and measured of the same job: how far each is off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from pages.shared import components, fit, library, session
from profiler.errors import HeadroomError
from profiler.estimate.comparison import ComparedPeak, compare_estimates, estimates_for
from profiler.recording import Metadata, Provenance
from profiler.spec import Job
from profiler.units import format_bytes

_OURS, _OTHERS = "ours", "others"
_ROWS = {_OURS: "Headroom's", _OTHERS: "As others compute it too"}
_SMALLEST_PERCENT = 0.005
_RUNS = (Provenance.SIMULATED, Provenance.MEASURED)


def panel(job: Job) -> None:
    """Draw, folded, the formulas of a job beside its newest simulated and measured run; unfolded where there is one.

    Raises:
        HeadroomError: the model cannot be inspected.
    """
    runs = [run for provenance in _RUNS if (run := _newest(session.entries(), job, provenance))]
    with st.expander("How do formulas see this?", expanded=bool(runs)):
        shown = st.segmented_control(
            "Formulas", list(_ROWS), format_func=_ROWS.__getitem__, required=True, **session.linked("formulas", list(_ROWS))
        )
        estimates = estimates_for(fit.count_parameters(job), job)
        summaries = [_named(session.summary(run.id)) for run in runs]
        rows = compare_estimates(estimates if shown == _OTHERS else estimates[:1], summaries)
        components.table(_frame(rows), key="formulas", alt="The peak by formulas, simulated and measured", height="content")
        st.caption(_reference(rows, runs, job))
        for row in rows:
            if row.note:
                st.markdown(f"- **{row.name}** ([source]({row.source_url})): {row.note.replace('*', chr(92) + '*')}")


def is_same_run(one: Job, other: Job) -> bool:
    """Return whether two jobs run the same step: they may differ in the device, in the seed, and in how often the step is repeated."""
    return _step_of(one) == _step_of(other)


def _step_of(job: Job) -> Job:
    return replace(job, device="cpu", workload=replace(job.workload, steps=1, seed=0))


def _newest(entries: Sequence[library.Entry], job: Job, provenance: Provenance) -> library.Entry | None:
    """Return the newest whole run of a job with this provenance, on the job's device if there is one, else on any."""
    found = [(entry, ran) for entry in entries if entry.metadata.provenance is provenance and (ran := _job_of(entry.metadata))]
    same = [(entry, ran) for entry, ran in found if is_same_run(ran, job)]
    here = [entry for entry, ran in same if ran.device == job.device]
    return next(iter([*here, *(entry for entry, _ in same)]), None)


def _job_of(metadata: Metadata) -> Job | None:
    if not metadata.job or not metadata.complete or "error" in metadata.facts:
        return None
    try:
        return Job.from_json(metadata.job)
    except HeadroomError:
        return None


def _named(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a run's summary under a title that says how and on what it ran."""
    return summary | {"title": f"{str(summary['provenance']).capitalize()} on {_device_name(summary['device'])}"}


def _device_name(device: dict[str, Any]) -> str:
    name = str(device.get("name") or "cpu")
    return "CPU" if name == "cpu" else name


def _frame(rows: Sequence[ComparedPeak]) -> pd.DataFrame:
    return pd.DataFrame(
        [(row.name, format_bytes(row.peak_bytes), _error(row, rows), row.provenance.value, row.peak_bytes) for row in rows],
        columns=["peak of", "peak", "error", "provenance", "peak_bytes"],
    )


def _error(row: ComparedPeak, rows: Sequence[ComparedPeak]) -> str:
    """Return a row's error in percent, in bytes where percent would be all zeros."""
    if row.error_percent is None:
        return "not known yet" if row.provenance is Provenance.ESTIMATED else "reference"
    if abs(row.error_percent) >= _SMALLEST_PERCENT:
        return f"{row.error_percent:+.2f} %"
    reference = next(other for other in rows if other.error_percent is None)
    return format_bytes(row.peak_bytes - reference.peak_bytes, signed=True)


def _reference(rows: Sequence[ComparedPeak], runs: Sequence[library.Entry], job: Job) -> str:
    if not runs:
        return "Allocated bytes, estimated. Run or simulate the job to see how far each formula is off."
    text = f"Allocated bytes at the peak. Errors are against the run that was {runs[-1].metadata.provenance.value}."
    ran = _job_of(runs[-1].metadata)
    if ran is not None and ran.device != job.device:
        text += f" It ran on {_device_name(runs[-1].metadata.device)}, where kernels and rounding are others than on the job's device."
    return text

"""The baseline of a comparison: one line that says it, and the job form for changing it. The address carries it."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from pages.shared import components, job_form, session
from profiler.jobs.run import provenance_of
from profiler.jobs.targets import target_of
from profiler.optimizations.registry import validate
from profiler.spec import Job

EXAMPLE = replace(job_form.EXAMPLE_ON_A_GPU, toggles=())
"""Full fine-tuning in float32 with AdamW: what the start page offers to compare with."""


def draw() -> tuple[Job, str]:
    """Draw the baseline and return it, in its canonical form, with the engine that runs it.

    Raises:
        SpecError: the address carries no job, or the form's fields do not go together.
    """
    place = st.container(horizontal=True, vertical_alignment="center", gap="small")
    if st.toggle("Change the baseline", key="compare_change"):
        with st.container(border=True):
            before = _carried()
            job, engine = job_form.draw()
            if (job, engine) != before:
                session.choose(**({"job": None, "engine": None} | session.job_link(job, engine)))
                job_form.hold_address()
    else:
        job, engine = _carried()
    with place:
        st.markdown("**Baseline:**")
        st.text(job.title)  # as it is: a model's name comes from a link, and Markdown could fetch pictures
        components.badge(provenance_of(engine))
    return job, engine


def _carried() -> tuple[Job, str]:
    """Return the job of the address; without one, what the form said last."""
    job = session.linked_job()
    if job is None:
        return job_form.last()
    engine, device = target_of(job.device, session.chosen("engine"))
    return validate(replace(job, device=device)), engine

"""A training configuration that someone brings -> the job form, filled, and what it leaves out."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from pages.shared import job_form, session
from profiler.jobs.targets import DEFAULT_STEPS
from profiler.optimizations.training_arguments import job_from_training_arguments

_READ, _NOTES = "training_config_read", "training_config_notes"


def upload() -> None:
    """Draw the field for a TrainingArguments or TRL configuration; the form then shows the step that it describes.

    What the file does not say stays as the form has it: the model, where the catalogue has no such name, the length of sequences, and where
    the job runs.

    Raises:
        SpecError: the file is no such configuration, or asks for what is not modelled.
    """
    file = st.file_uploader(
        "A training configuration: `TrainingArguments` as JSON, the YAML of `trl sft`, or a script that has them",
        type=["json", "yaml", "yml", "py"],
        key="form_training_config",
        help="What decides memory is read into the form below: batch, length, precision, optimizer, checkpointing, LoRA. "
        "A script is read, and never run.",
    )
    if file is None:
        session.remember(_READ, None)
        return
    if file.file_id != session.recall(_READ):
        shown, engine = job_form.last()
        job, notes = job_from_training_arguments(file.getvalue(), model=shown.model, device=shown.device, seq=shown.workload.seq)
        steps = replace(job.workload, steps=DEFAULT_STEPS[engine])
        job_form.fill(replace(job, workload=steps), engine)
        session.remember(_READ, file.file_id)
        session.remember(_NOTES, notes)
    told: tuple[str, ...] = session.recall(_NOTES, ())
    st.caption("The form below shows one step of it." + (" What was assumed, and what is left out:" if told else ""))
    if told:
        st.text("\n".join(told))  # as it is: the sentences quote the file, and Markdown could fetch pictures

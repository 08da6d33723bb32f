"""Profile: what does my model's step use?"""

import streamlit as st

from pages.shared import components, fit, job_form, navigation, run_panel, session
from profiler.errors import SpecError

navigation.require_app()
components.heading("Profile", "What does my model's step use?")

with st.expander("Use my own model"), components.refusals_shown():
    job_form.upload_config()

job = None
with components.refusals_shown():
    job = job_form.draw()
    fit.facts(job)

if st.button("Run", type="primary", disabled=job is None, key="profile_run") and job is not None:
    with components.refusals_shown():
        status = session.jobs().submit(job)
        run_panel.note_started(status.run_id)
        job_form.hold(job)
        session.choose(**session.run_link(status.run_id, job))

run_id = session.chosen("run")
if run_id:
    try:
        run_panel.show(run_id)
    except SpecError:
        st.info("The run of this link is not on this machine. The form above holds its job: Run makes it again.")

with components.refusals_shown():
    run_panel.recent()
components.how_to_read(
    """
- A **warm-up step** comes first: it creates the optimizer's state. The peak covers the steps after it.
- The **lower bound** is a closed formula: weights, gradients, optimizer state and logits, without activations. The run measures the rest.
- A run happens in a process of its own. Closing the page does not end it; its link shows it again.
- The same job on the same machine is answered from the store at once.
"""
)

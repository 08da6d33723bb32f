"""Profile: what does my model's step use?"""

import streamlit as st

from pages.shared import components, fit, formulas, job_form, navigation, run_panel, session, training_config
from profiler.errors import SpecError
from profiler.jobs.run import CAPTURE, SIMULATE, RunState

navigation.require_app()
components.heading("Profile", "What does my model's step use?")

with st.expander("Use my own model or training configuration"):
    with components.refusals_shown():
        job_form.upload_config()
    with components.refusals_shown():
        training_config.upload()

job, engine = None, CAPTURE
with components.refusals_shown():
    job, engine = job_form.draw()
    fit.facts(job)

label = "Run"
if engine == SIMULATE:
    label = "Simulate"
    session.jobs().warm_up()
if st.button(label, type="primary", disabled=job is None, key="profile_run") and job is not None:
    with components.refusals_shown():
        run_panel.start(job, engine)
        job_form.hold_address()

run_id, shown = session.chosen("run"), job
if run_id:
    try:
        status = run_panel.show(run_id)
        shown = status.job if status.state is RunState.DONE else job
    except SpecError:
        st.info("The run of this link is not on this machine. The form above holds its job: Run makes it again.")

with components.refusals_shown():
    if shown is not None:
        formulas.panel(shown)
with components.refusals_shown():
    run_panel.recent()
components.how_to_read(
    """
- A **warm-up step** comes first: it creates the optimizer's state. The peak covers the steps after it.
- **Measure** runs the model here. **Simulate** runs the same code on tensors without memory, as if on the GPU that you choose. No such GPU
  is needed, and one step is enough: simulated steps repeat each other.
- The **lower bound** is a closed formula: weights, gradients, optimizer state and logits, without activations. A run finds the rest.
- **Fits** is judged by replaying the run's requests through the allocator of a GPU that is otherwise empty. What lies outside of the
  allocator is a band of measurements; where it decides, the answer is "too close to say".
- **How do formulas see this** compares the newest simulated and measured run of the same step, whatever its device.
- A run happens in a process of its own. Closing the page does not end it; its link shows it again.
- The same job on the same machine is answered from the store at once.
"""
)

"""Compare: what does each toggle save and cost?"""

from dataclasses import replace
from functools import partial

import streamlit as st

from pages.shared import (
    compare_baseline,
    compare_code,
    compare_details,
    compare_results,
    compare_runs,
    compare_toggles,
    components,
    navigation,
    session,
)
from profiler.jobs.run import provenance_of

navigation.require_app()
session.jobs().warm_up()
components.heading("Compare", "What does each toggle save and cost?")

baseline = None
with components.refusals_shown():
    baseline = compare_baseline.draw()
if baseline is None:
    st.page_link("pages/compare.py", label="Begin with another baseline", icon=":material/arrow_forward:", query_params={})
    st.stop()

job, engine = baseline
with components.refusals_shown():
    comparison, budgets = compare_toggles.draw(job, provenance_of(engine))
    compared = replace(compare_runs.panel(comparison, engine), budgets=budgets) if comparison is not None else None
    if compared is not None and () in compared.footprints:
        compare_results.metrics(compared)
        compare_results.main_chart(compared)
        compare_results.waterfall(compared)
        components.fragment(partial(compare_details.panel, compared, engine))
        compare_details.downloads(compared)
        compare_code.panel(compared)
compare_toggles.catalogue(job)
components.how_to_read(
    """
- **The baseline** is what you have. Each toggle is switched on alone, in the order you give, all together, and all but one.
- **The peak** is the most that is allocated in a step after the warm-up: it decides whether a run fits. A toggle that lowers only what is
  not at the peak saves nothing, and its sentence says so.
- **The waterfall** adds up to the byte. What a toggle saves depends on what is on already, so its order matters.
- **Overlap** means that others already save part of what a toggle saves alone; **synergy** that it saves more beside them.
- **Simulated** runs have no loss and no measured time. Processor time is this machine's and ranks optimizations otherwise than a GPU.
- Once a simulation was asked for, every change of the toggles is followed by itself. What is measured is asked for each time.
"""
)

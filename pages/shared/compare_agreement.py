"""The same comparison by both engines, where this machine's CPU runs the job: measured beside simulated, and the bytes between them."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages.shared import compare_runs, components
from profiler.analysis.measured_only import difference_sentence
from profiler.jobs.run import CAPTURE, SIMULATE
from profiler.jobs.targets import CPU
from profiler.planner.comparison import Compared, name_of

_LABELS = {CAPTURE: "Measure it here as well", SIMULATE: "Simulate it as well"}


def panel(compared: Compared, engine: str) -> None:
    """Draw the button that runs the comparison with the other engine, and the table of both.

    Args:
        compared: by the engine that the page shows.
        engine: that one.
    """
    if compared.comparison.baseline.device != CPU:
        st.caption(
            "Both engines can run a job on this machine's CPU: choose it in the baseline. A GPU of the catalogue is only simulated; "
            "Formulas sets the newest measured run of the same step beside it, whatever its device."
        )
        return
    other = SIMULATE if engine == CAPTURE else CAPTURE
    counterpart = compare_runs.panel(compared.comparison, other, place="agreement", label=_LABELS[other])
    measured, simulated = (compared, counterpart) if engine == CAPTURE else (counterpart, compared)
    both = [switched for switched in compared.comparison.jobs() if switched in measured.footprints and switched in simulated.footprints]
    if not both:
        return
    rows = [(name_of(one), measured.footprints[one].peak_bytes, simulated.footprints[one].peak_bytes) for one in both]
    frame = pd.DataFrame(rows, columns=["run", "measured_bytes", "simulated_bytes"])
    frame["difference_bytes"] = frame["simulated_bytes"] - frame["measured_bytes"]
    components.table(frame, key="agreement", alt="The peak of each run, measured and simulated", height="content")
    num_equal = int((frame["difference_bytes"] == 0).sum())
    st.caption(f"{num_equal} of {len(frame)} peaks agree to the byte.")
    for one in both:
        run = measured.footprints[one]
        sentence = difference_sentence(run.peak_bytes, simulated.footprints[one].peak_bytes, run.measured_only)
        if sentence:
            st.caption(f"{name_of(one)}: {sentence}")

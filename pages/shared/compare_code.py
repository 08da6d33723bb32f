"""A run of a comparison as code to take away: a plain script, and the configurations of other tools, each with what it cannot say."""

from __future__ import annotations

import streamlit as st

from pages.shared import components, session
from profiler.optimizations.export import export_job
from profiler.planner.comparison import Compared, Switched, name_of


def panel(compared: Compared) -> None:
    """Draw, folded and made when it is opened, the choice of a run and a tool, and the text."""
    with st.expander("As code", on_change="rerun", key="compare_code") as box:
        if box.open:
            with components.refusals_shown():
                _draw(compared)


def _draw(compared: Compared) -> None:
    comparison = compared.comparison
    runs: dict[str, Switched] = {name_of(switched): switched for switched in dict.fromkeys([comparison.asked, *comparison.jobs()])}
    run_column, tool_column = st.columns([3, 2])
    with run_column:
        name = str(st.selectbox("Run as code", list(runs), **session.linked("code_of", list(runs))))
    programs = {program.tool: program for program in export_job(comparison.job(runs[name]))}
    with tool_column:
        tool = str(st.selectbox("Tool", list(programs), **session.linked("tool", list(programs))))
    program = programs[tool]
    for sentence in program.missing:
        st.caption(f"Not said: {sentence}")
    st.code(program.text, language=program.language, height=400)
    components.download(f"Download {program.filename}", lambda: program.text, program.filename, "text/plain")

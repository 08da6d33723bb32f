"""From how many zeros on is a sparse format smaller, and faster, than dense? Bytes by formula and measured, time measured."""

from __future__ import annotations

import streamlit as st

from pages.shared import components, compress_runs, session
from profiler.compression.experiment import Experiment
from profiler.figures.break_even import break_even_figure, break_even_table, break_even_time_figure, store_toggle, stored
from profiler.spec import Toggle

_MOST = 65_536
_FORMATS = ("csr-int32", "coo", "bitmask")
_AMOUNTS = ("0.5", "0.7", "0.9", "0.98")
_NUMBERS = {"float32": 4, "bfloat16": 2, "int8": 1}


def draw(model: str) -> None:
    """Draw the break-even of a matrix by formulas, and that of a model as far as it was measured."""
    rows_place, columns_place, format_place = st.columns(3)
    with rows_place:
        rows = int(st.number_input("Rows", **session.linked_number("rows", 768, 1, _MOST)))
    with columns_place:
        columns = int(st.number_input("Columns", **session.linked_number("columns", 768, 1, _MOST)))
    with format_place:
        names = list(_NUMBERS)
        number_format = str(st.selectbox("Numbers", names, **session.linked("numbers", names)))
    itemsize = _NUMBERS[number_format]
    measured = stored(compress_runs.results(model))
    components.chart(
        break_even_figure(measured if itemsize == 4 else [], rows=rows, columns=columns, itemsize=itemsize, theme=session.theme()),
        key="break_even_bytes",
        alt="Bytes of sparse formats over the share of zeros; the table has where each begins to be smaller than dense.",
    )
    st.caption(
        f"Lines: estimated, by formula, for a matrix of {rows:,} x {columns:,} in {number_format}. Points: measured, the whole model, whose"
        " embeddings stay dense, which moves them towards 1."
    )
    components.table(break_even_table(rows, columns, itemsize), key="break_even", alt="Formats and their break-even", height="content")
    st.subheader("And in time", anchor=False)
    sweep = [
        Experiment(model=model, stages=(Toggle("prune", (("amount", amount),)), store_toggle(name)))
        for name in _FORMATS
        for amount in _AMOUNTS
    ]
    compress_runs.offer(sweep, label="Measure the break-even in time", key="compress_sweep")
    components.chart(
        break_even_time_figure(measured, theme=session.theme()),
        key="break_even_time",
        alt="Processor time of sparse formats over the share of zeros; the table of results has the numbers.",
    )
    st.caption(
        "Measured: a forward pass of the whole model. Fewer bytes are not less time: what is expanded first has the dense product to do"
        " besides."
    )

"""From how many zeros on is a sparse format smaller, and faster, than dense? Bytes by formula and measured, time measured."""

from __future__ import annotations

import streamlit as st

from pages.shared import components, compress_runs, session
from profiler.compression.experiment import Experiment
from profiler.compression.products import MOST_INPUTS, Products, ProductTime
from profiler.errors import SpecError
from profiler.figures.break_even import break_even_figure, break_even_table, break_even_time_figure, store_toggle, stored
from profiler.jobs.facts import products_asked
from profiler.spec import Toggle

_MOST = 65_536
_DEFAULT = Products()
_STORED = (("prune", "csr-int32"), ("prune", "coo"), ("prune", "bitmask"), ("prune-blocks", "bsr-4"))
"""What makes the zeros of a model that is measured as a whole, and the format that leaves them out."""
_AMOUNTS = ("0.5", "0.7", "0.9", "0.98")
_NUMBERS = {"float32": 4, "bfloat16": 2, "int8": 1}


def draw(model: str) -> None:
    """Draw the break-even of a matrix, in bytes by formulas and in time as measured, and that of a model as far as it was measured."""
    rows, columns, inputs, number_format = _shape()
    itemsize = _NUMBERS[number_format]
    models = stored(compress_runs.results(model))
    components.chart(
        break_even_figure(models if itemsize == 4 else [], rows=rows, columns=columns, itemsize=itemsize, theme=session.theme()),
        key="break_even_bytes",
        alt="Bytes of sparse formats over the share of zeros; the table has where each begins to be smaller than dense.",
    )
    st.caption(
        f"Lines: estimated, by formula, for a matrix of {rows:,} x {columns:,} in {number_format}. Points: measured, the whole model, whose"
        " embeddings stay dense, which moves them towards 1."
    )
    st.subheader("And in time", anchor=False)
    times = _times(rows, columns, inputs)
    components.chart(
        break_even_time_figure(times, models, theme=session.theme()),
        key="break_even_time",
        alt="Processor time of sparse products over the share of zeros; the table has where each format begins to be faster.",
    )
    st.caption(
        f"Lines: measured, a product of a float32 matrix of {rows:,} x {columns:,} with {inputs:,} inputs, one thread. Points: measured, a"
        " forward pass of the whole model. Fewer bytes are not less time: what is expanded first has the dense product to do besides."
    )
    table = break_even_table(rows, columns, itemsize, times)
    components.table(table, key="break_even", alt="Formats: from how many zeros on each is smaller and faster than dense", height="content")
    st.caption("Zeros from which a format is smaller, by formula, and faster, as measured; empty where it is at no share that was tried.")
    sweep = [
        Experiment(model=model, stages=(Toggle(pruning, (("amount", amount),)), store_toggle(name)))
        for pruning, name in _STORED
        for amount in _AMOUNTS
    ]
    compress_runs.offer(sweep, label="Measure the whole model, too", key="compress_sweep")


def _shape() -> tuple[int, int, int, str]:
    """Draw the controls and return rows, columns, inputs at once and the format of numbers."""
    rows_place, columns_place, inputs_place, format_place = st.columns(4)
    with rows_place:
        rows = int(st.number_input("Rows", **session.linked_number("rows", _DEFAULT.rows, 1, _MOST)))
    with columns_place:
        columns = int(st.number_input("Columns", **session.linked_number("columns", _DEFAULT.columns, 1, _MOST)))
    with inputs_place:
        about = "Vectors that the matrix is multiplied with: the tokens of a prompt, or 1 while a model writes."
        inputs = int(st.number_input("Inputs at once", help=about, **session.linked_number("inputs", _DEFAULT.inputs, 1, MOST_INPUTS)))
    with format_place:
        names = list(_NUMBERS)
        number_format = str(st.selectbox("Numbers", names, **session.linked("numbers", names)))
    return rows, columns, inputs, number_format


def _times(rows: int, columns: int, inputs: int) -> list[ProductTime]:
    """Draw the button that measures products of this shape, and return what is known of them."""
    try:
        asked = products_asked(Products(rows=rows, columns=columns, inputs=inputs), session.store().home)
    except SpecError as error:
        st.caption(str(error))
        return []
    compress_runs.offer([asked], label="Measure products of this shape", key="compress_products")
    return asked.find() or []

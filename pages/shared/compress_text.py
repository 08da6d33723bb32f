"""What do sparse counts of words take and give against dense vectors of the same documents? Measured by a button, then kept."""

from __future__ import annotations

import streamlit as st

from pages.shared import components, compress_runs, session
from profiler.compression.base import to_install
from profiler.compression.text_forms import NEEDS
from profiler.figures.text_forms import forms_table, gradients_table
from profiler.jobs.facts import text_asked


def draw(model: str) -> None:
    """Draw the forms of the lab's documents; they are the same for every model."""
    del model
    st.markdown(
        "Most words are not in most documents, so counts of words are mostly zeros, and a sparse format is far below its break-even. A"
        " dense vector of a few numbers a document may be smaller or larger, and needs a table of word vectors besides."
    )
    if missing := to_install(NEEDS):
        st.info(missing)
        return
    asked = text_asked(session.store().home)
    compress_runs.offer([asked], label="Measure text", key="compress_text")
    facts = asked.find()
    if facts is None:
        return
    documents = facts.forms[0]
    components.table(forms_table(facts), key="text_forms", alt="Forms of the documents with their bytes and accuracy", height="content")
    st.caption(
        f"Measured: {documents.num_documents:,} pieces of the language reference, {documents.num_columns:,} words. Accuracy is that of one"
        " linear classifier a form, on pieces that none of them saw. The table is what a new document needs."
    )
    st.subheader("Training word vectors", anchor=False)
    components.table(gradients_table(facts), key="text_gradients", alt="Bytes of gradients and optimizer state", height="content")
    st.caption(
        "Measured: one step of 32 documents. A sparse gradient has a row for each word of the batch, 8 bytes and its numbers; coalesced, it"
        " shows fewer rows and holds as many. The state of SparseAdam is dense all the same: two numbers for each of the table's."
    )
    for sentence in facts.missing:
        st.caption(sentence)

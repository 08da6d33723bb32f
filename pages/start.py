"""Start: what can I do here? Samples, a file of one's own, a first run, and what this machine has."""

import streamlit as st

from pages.shared import (
    compare_baseline,
    compare_toggles,
    components,
    compress_choice,
    gallery,
    job_form,
    machine,
    navigation,
    opening,
    session,
)

navigation.require_app()
components.heading("Headroom", "See where a language model's memory goes, and what each optimization really gives back.")

open_file, profile_now = st.columns(2, border=True)
with open_file:
    st.subheader("Open a recording or a CUDA snapshot", anchor=False)
    files = st.container()
    with components.refusals_shown():
        reading = opening.known_model()
        with files, components.refusals_shown():
            opening.upload(reading)
        with files, components.refusals_shown():
            opening.path(reading)
with profile_now:
    st.subheader("Profile a model now", anchor=False)
    st.markdown(
        "Run a language model's training step, prefill or decode on this machine and record every allocation. A tiny model takes seconds."
    )
    st.page_link("pages/profile.py", label="Choose a model", icon=":material/arrow_forward:")
    st.subheader("Will it fit?", anchor=False)
    st.markdown(
        "Simulate the same step on a GPU that need not be here, from an RTX 3060 to a B200. Seconds later you see whether it fits, and if "
        "not, where memory runs out."
    )
    example = session.job_link(job_form.EXAMPLE_ON_A_GPU)
    st.page_link("pages/profile.py", label="Try Llama 3 8B on an RTX 4090", icon=":material/arrow_forward:", query_params=example)

compare, compress = st.columns(2, border=True)
with compare:
    st.subheader("What does each optimization save?", anchor=False)
    st.markdown("Switch on bfloat16, checkpointing, 8-bit AdamW and LoRA, alone and together: bytes, time, and why.")
    example = session.comparison_link(compare_baseline.EXAMPLE, toggles=compare_toggles.EXAMPLES[compare_baseline.EXAMPLE.workload.kind])
    st.page_link("pages/compare.py", label="Compare on Llama 3 8B", icon=":material/arrow_forward:", query_params=example)
with compress:
    st.subheader("What does compression really give?", anchor=False)
    st.markdown("Prune, quantize and code a small trained model: bytes in memory and on disk, time and loss, beside what is promised.")
    example = compress_choice.link(compress_choice.EXAMPLE)
    st.page_link("pages/compress.py", label="Prune half, then pack into four bits", icon=":material/arrow_forward:", query_params=example)

with st.expander("Explain an out-of-memory message"), components.refusals_shown():
    opening.explanation()

st.subheader("Sample recordings", anchor=False)
gallery.samples()

runs = [entry for entry in session.entries() if not entry.is_sample]
if runs:
    st.subheader("Runs of this machine", anchor=False)
    gallery.runs(runs)

st.subheader("This machine", anchor=False)
machine.facts()

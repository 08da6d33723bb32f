"""Compress: what do pruning, quantization and sparsity really give?"""

import streamlit as st

from pages.shared import (
    components,
    compress_break_even,
    compress_choice,
    compress_promises,
    compress_results,
    compress_runs,
    compress_target,
    compress_text,
    navigation,
    session,
)

navigation.require_app()
components.heading("Compress", "What do pruning, quantization, sparsity and coding really give?")

model = compress_choice.model()
VIEWS = {
    "Pipeline": compress_choice.draw,
    "Target": compress_target.draw,
    "Promises": compress_promises.draw,
    "Break-even": compress_break_even.draw,
    "Text": compress_text.draw,
}
view = str(st.segmented_control("View", list(VIEWS), required=True, label_visibility="collapsed", **session.linked("view", list(VIEWS))))
compress_runs.progress()
with components.refusals_shown():
    VIEWS[view](model)
with components.refusals_shown():
    compress_results.draw(model)
components.how_to_read(
    """
- **Held in memory** counts the storages that the model holds, each once: packed weights and sparse indices too. The **resident set** is
  what the process grew by, and is exact to some MiB. The **file** was written, read back and compared.
- Each number stands beside the same of the **untouched** model, which is frozen, measured in the same process and on one thread.
- **Time** is processor time of a forward pass, the two models in turns; the time by the clock stands apart, since other work on the
  machine lengthens it. A GPU has other kernels: int8 that is slow here may be fast there.
- **Loss** is on held-out text, in nats. A small model that was trained for minutes loses less than a large one would: see the notes.
- **Conversion peak** is the most that the process grew by while a technique worked: it decides where a model can be converted.
- A technique that **saves on disk only** is expanded before it runs: its model takes as much memory as before.
- **Fine-tuning** trains the untouched model in the same way beside it: the column of stages calls that loss control_loss.
"""
)

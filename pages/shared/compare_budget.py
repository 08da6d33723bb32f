"""The limit that runs are to stay under: a card's memory, or a size that the user types. The address carries it."""

from __future__ import annotations

import streamlit as st

from pages.shared import session
from pages.shared.allocator_editor import read_capacity
from profiler.devices import GPUS
from profiler.spec import Job
from profiler.units import format_bytes


def draw(job: Job) -> int | None:
    """Draw the field of the budget and return it in bytes; by default the memory of the job's GPU, on a CPU none."""
    gpu = GPUS.get(job.device)
    text = st.text_input(
        "Budget",
        placeholder=f"{format_bytes(gpu.memory_bytes)}, the card's memory" if gpu else "none, or 24 GiB",
        help="Drawn as a line: which runs stay under it? A plain number is GiB.",
        width=260,
        **session.linked_text("budget", 20),
    )
    return read_capacity(text, "budget") if text.strip() else gpu.memory_bytes if gpu else None

"""A simulated run that is done: whether it fits, why not, what it needs, and what the simulation leaves out."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from pages.shared import components, details, session
from profiler.analysis.fit import Fit, Verdict, judge_fit
from profiler.devices import GPUS, Gpu
from profiler.figures.composition import composition_figure
from profiler.planner.validated import nearest_run
from profiler.recording import Category, Metadata
from profiler.spec import Job
from profiler.units import format_duration_us

_BOXES = {Fit.FITS: st.success, Fit.DOES_NOT_FIT: st.error, Fit.TOO_CLOSE: st.warning}
_MANY_EVENTS = 500_000
"""More are judged when that is asked for: it takes some dozen replays where a run does not fit."""


def result(recording_id: str, device: str) -> None:
    """Draw what a simulation found.

    Args:
        recording_id: of this machine.
        device: that was simulated, as the job says it.
    """
    gpu, metadata = GPUS.get(device), session.recording(recording_id).metadata
    found = _judge(recording_id, gpu) if gpu else None
    if found:
        _BOXES[found.kind](found.sentences()[0])
    components.provenance(metadata)
    components.metrics(details.headline(recording_id, None))
    _composition(recording_id, gpu)
    if found:
        _why(found)
    _step_time(metadata.facts)
    _left_out(metadata)
    if gpu and metadata.job:
        st.caption(" ".join(nearest_run(Job.from_json(metadata.job), gpu.architecture, metadata.versions).sentences()))


def _composition(recording_id: str, gpu: Gpu | None) -> None:
    categories = session.summary(recording_id)["categories_at_peak"]
    components.chart(
        composition_figure(
            {Category[name]: num_bytes for name, num_bytes in categories.items()},
            theme=session.theme(),
            title="Allocated at the peak, simulated",
            capacity_bytes=gpu.memory_bytes if gpu else None,
        ),
        key="simulated_composition",
        alt="What is allocated at the peak, by category; the metrics above and Timeline have the numbers.",
    )


def search(recording_id: str) -> None:
    """Draw the answer of a search for the largest that fits, and what was simulated for it; what it found is drawn by `result`."""
    found = session.recording(recording_id).metadata.facts.get("largest", {})
    head, *rest = found.get("sentences") or ["The search left no answer."]
    st.markdown(f"**{head}**")
    for sentence in rest:
        st.markdown(sentence)
    tried = pd.DataFrame(found.get("simulated", []))
    if not tried.empty:
        with st.expander(f"What was simulated ({len(tried)})"):
            tried = tried.rename(columns={"value": "sequence" if found.get("what") == "seq" else "batch"})
            components.table(tried, key="search", alt="The candidates that were simulated, and whether they fit")


@st.cache_resource(max_entries=64, show_spinner="Judging whether it fits")
def verdict(recording_id: str, gpu_name: str) -> Verdict:
    """Return whether a recording of this machine fits on a GPU of the catalogue."""
    return judge_fit(session.recording(recording_id), GPUS[gpu_name], timeline=session.timeline(recording_id))


def _judge(recording_id: str, gpu: Gpu) -> Verdict | None:
    if session.timeline(recording_id).num_events > _MANY_EVENTS and not st.toggle("Judge whether it fits", key="simulated_judge"):
        return None
    return verdict(recording_id, gpu.name)


def _why(found: Verdict) -> None:
    """Draw the verdict's other sentences: where memory runs out, then, folded, why the allocator could not help it."""
    first, *rest = found.sentences()[1:]
    st.markdown(first)
    if rest:
        with st.expander("Why the allocator could not serve it"):
            for sentence in rest:
                st.markdown(f"- {sentence}")


def _step_time(facts: dict[str, Any]) -> None:
    seconds = facts.get("estimated_step_seconds")
    if not isinstance(seconds, int | float):
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"A step takes about **{format_duration_us(seconds * 1e6)}** at best.")
        st.badge("Estimated", color="gray")
    with st.expander("What this time assumes"):
        for sentence in facts.get("assumptions", []):
            st.markdown(f"- {sentence}")
        st.markdown("- For comparing one setting with another on this GPU; nothing was measured.")


def _left_out(metadata: Metadata) -> None:
    left_out = metadata.facts.get("not_included", [])
    if left_out:
        st.caption(f"Not included: {', '.join(map(str, left_out))}.")

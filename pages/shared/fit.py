"""A job before it runs: its exact parameter count, what it needs at least, and whether its device has that much."""

from __future__ import annotations

import streamlit as st

from pages.shared import session
from profiler.devices import GPUS, context_band, this_machine
from profiler.estimate.states import StateEstimate, estimate_states, shortfall_warning
from profiler.jobs.inspection import inspect_in_worker
from profiler.models.catalogue import entry
from profiler.spec import Job
from profiler.units import format_bytes


def facts(job: Job) -> None:
    """Draw the job's parameter count and lower bound, and a warning where it will not fit.

    Raises:
        HeadroomError: the model cannot be inspected.
    """
    num_parameters = count_parameters(job)
    estimate = estimate_states(num_parameters, job)
    needed = format_bytes(estimate.lower_bound_bytes)
    st.markdown(f"**{num_parameters:,} parameters.** At least {needed}: {_parts(estimate)}; activations come on top.")
    available = _available_bytes(job.device)
    warning = None if available is None else shortfall_warning(estimate, available)
    if warning:
        st.warning(warning)


def count_parameters(job: Job) -> int:
    """Return the exact number of parameters: the catalogue's, or counted in a worker for a user's own configuration."""
    if job.model.config is None:
        return entry(job.model.name).num_parameters_with_head
    with st.spinner("Counting the model's parameters"):
        return int(inspect_in_worker(job.model)["num_parameters"])


def _available_bytes(device: str) -> int | None:
    """Return the memory that a run on this device can have now, or at best on one that is simulated; None where it cannot be read."""
    if device == "cpu":
        return this_machine().available_bytes
    if simulated := GPUS.get(device):
        return simulated.memory_bytes - context_band(simulated).low_bytes
    gpus = {f"cuda:{gpu.index}": gpu for gpu in session.machine().latest.gpus}
    gpu = gpus.get("cuda:0" if device == "cuda" else device)
    return gpu.free_bytes if gpu else None


def _parts(estimate: StateEstimate) -> str:
    parts = {
        "weights": estimate.weights_bytes,
        "gradients": estimate.gradients_bytes,
        "optimizer state": estimate.optimizer_state_bytes,
        "logits": estimate.logits_bytes,
        "KV cache": estimate.kv_cache_bytes,
    }
    return ", ".join(f"{name} {format_bytes(num_bytes)}" for name, num_bytes in parts.items() if num_bytes)

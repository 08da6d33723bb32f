"""A job -> its measured and its simulated recording on this machine, and the measured one as a run that others can predict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from profiler.analysis.summary import summarize
from profiler.capture.engine import capture_job, check_device
from profiler.devices import find_gpu
from profiler.models.catalogue import facts_of
from profiler.optimizations import attention, optimizers, precision
from profiler.optimizations.registry import REGISTRY, validate
from profiler.recording import Recording
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, WorkloadKind
from profiler.storage import read_recording

_WORKLOADS = {WorkloadKind.TRAIN: "train", WorkloadKind.PREFILL: "inference_prefill", WorkloadKind.DECODE: "inference_decode"}


def measure_and_simulate(job: Job, device: str, folder: Path) -> tuple[Recording, Recording]:
    """Return the measured and the simulated recording of a job on a device of this machine.

    Args:
        job: what to run; its own device does not count.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        folder: where the recordings may lie.

    Raises:
        CaptureUnavailable: the device is not on this machine.
        SpecError: the job is not possible, or its GPU is not in the catalogue.
        SimulationUnsupported: something in the job cannot be simulated.
    """
    check_device(device)
    gpu = "cpu" if device == "cpu" else find_gpu(torch.cuda.get_device_name(device)).name
    with _without_onednn():
        capture_job(validate(replace(job, device=device)), folder / "measured.headroom")
        simulate_job(validate(replace(job, device=gpu)), folder / "simulated.headroom")
    return read_recording(folder / "measured.headroom"), read_recording(folder / "simulated.headroom")


def recorded_run(job: Job, measured: Recording) -> dict[str, Any]:
    """Return a measured recording in the schema of recorded GPU runs, with the job that repeats it.

    weights: parameters and buffers; states: what else is allocated when the first step that counts begins; peak: the most above both;
    total: all three; overhead: what the device had in use outside the allocator, null where nothing sampled it.
    """
    job = validate(job)
    summary, facts = summarize(measured), facts_of(job.model)
    weights, states = summary["weights_bytes"], summary["states_bytes"] or 0
    toggles = {toggle.name: dict(toggle.options) for toggle in job.toggles}
    return {
        "id": job.id,
        "model": job.model.name,
        "arch": {name: getattr(facts, name) for name in _ARCH},
        "workload": _WORKLOADS[job.workload.kind],
        "dtype": next((name for name in toggles if name in _DTYPES), "float32"),
        "precision": "amp" if "amp" in toggles else "pure",
        "batch": job.workload.batch,
        "seq_len": job.workload.seq,
        "attention": next((name for name in toggles if name in _ATTENTION), None),
        "activation_checkpointing": "checkpointing" in toggles,
        "lora_rank": int(toggles["lora"].get("rank", 16)) if "lora" in toggles else None,
        "optimizer": next((str(toggle) for toggle in job.toggles if toggle.name in _OPTIMIZERS), None),
        "measured_bytes": {
            "weights": weights,
            "states": states,
            "peak": summary["peak_allocated_bytes"] - weights - states,
            "total": summary["peak_allocated_bytes"],
            "reserved": summary["peak_reserved_bytes"],
            "overhead": _outside_bytes(measured, summary["peak_reserved_bytes"]),
        },
        "gpu": measured.metadata.device.get("name"),
        "versions": measured.metadata.versions,
        "job": job.to_json(),
    }


_ARCH = ("hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "intermediate_size", "vocab_size")
_DTYPES = frozenset(item.name for item in REGISTRY.values() if item.family is precision.PRECISION)
_ATTENTION = frozenset(item.name for item in attention.OPTIMIZATIONS)
_OPTIMIZERS = frozenset(item.name for item in REGISTRY.values() if item.family is optimizers.OPTIMIZER)


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Switch oneDNN off in the block: it keeps scratch that no operator shows."""
    was = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = was


def _outside_bytes(recording: Recording, reserved_bytes: int | None) -> int | None:
    """Return what the device had in use beside the allocator, at least, as its samples tell."""
    used = [row["value"] for row in recording.samples.to_pylist() if row["metric"] == "device_used_bytes"]
    return int(max(used)) - reserved_bytes if used and reserved_bytes else None

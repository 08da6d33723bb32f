"""What a simulation pretends to run on, and what it leaves out."""

from __future__ import annotations

from typing import Any

from profiler.capture.surroundings import library_versions
from profiler.devices import Gpu, this_machine

NOT_INCLUDED_ON_GPU = ("CUDA context and loaded kernels", "NCCL buffers", "cuDNN workspaces", "memory of other processes")


def describe_simulation(gpu: Gpu | None) -> dict[str, Any]:
    """Return the `Metadata` fields ``versions``, ``device`` and ``facts`` of a simulation.

    Args:
        gpu: the card that is simulated; None for the CPU.
    """
    if gpu is None:
        return {"versions": library_versions(), "device": {"kind": "cpu", "name": "cpu", "total_bytes": this_machine().total_bytes}}
    device = {
        "kind": "cuda",
        "name": gpu.label,
        "index": 0,
        "total_bytes": gpu.memory_bytes,
        "capability": ".".join(map(str, gpu.compute_capability)),
    }
    return {"versions": library_versions(), "device": device, "facts": {"not_included": list(NOT_INCLUDED_ON_GPU)}}

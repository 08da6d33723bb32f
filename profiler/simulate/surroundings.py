"""What a simulation pretends to run on, and what it leaves out."""

from __future__ import annotations

from typing import Any

from profiler.capture.surroundings import library_versions
from profiler.devices import Gpu, this_machine

NOT_INCLUDED_ON_GPU = ("CUDA context and loaded kernels", "NCCL buffers", "cuDNN workspaces", "memory of other processes")

_TIME_ON_CPU = "The time axis tells the order of events and not how long anything takes: each takes a microsecond."
_TIME_ON_GPU = "Times are estimated operator by operator from peak rates of the GPU, for comparing; nothing was measured."


def describe_simulation(gpu: Gpu | None) -> dict[str, Any]:
    """Return the `Metadata` fields ``versions``, ``device``, ``facts`` and ``warnings`` of a simulation.

    Args:
        gpu: the card that is simulated; None for the CPU.
    """
    if gpu is None:
        device = {"kind": "cpu", "name": "cpu", "total_bytes": this_machine().total_bytes}
        return {"versions": library_versions(), "device": device, "warnings": [_TIME_ON_CPU]}
    device = {
        "kind": "cuda",
        "name": gpu.label,
        "index": 0,
        "total_bytes": gpu.memory_bytes,
        "capability": ".".join(map(str, gpu.compute_capability)),
    }
    facts = {"not_included": list(NOT_INCLUDED_ON_GPU)}
    return {"versions": library_versions(), "device": device, "facts": facts, "warnings": [_TIME_ON_GPU]}

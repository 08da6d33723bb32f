"""What a measurement was made on: library versions, the device, the host."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import torch

from profiler import __version__
from profiler.devices import this_machine

_LIBRARIES = ("torch", "transformers")


def describe_run() -> dict[str, Any]:
    """Return the `Metadata` fields ``versions``, ``device`` and ``host`` of a measurement on this machine."""
    machine = this_machine()
    host = {name: value for name, value in machine.to_json().items() if name != "host"}  # recordings are shared: no host names
    return {"versions": library_versions(), "device": _device(machine.total_bytes), "host": host}


def library_versions() -> dict[str, str]:
    """Return the versions of Headroom, torch and, where it is installed, transformers."""
    versions = {"headroom": __version__}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _device(host_bytes: int) -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"kind": "cpu", "name": "cpu", "total_bytes": host_bytes}
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {"kind": "cuda", "name": properties.name, "total_bytes": properties.total_memory, "cuda": torch.version.cuda}

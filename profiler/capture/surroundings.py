"""What a measurement was made on: library versions, the device, the host."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from profiler import __version__
from profiler.devices import this_machine

_LIBRARIES = ("torch", "transformers")


def describe_run(gpu: dict[str, Any] | None) -> dict[str, Any]:
    """Return the `Metadata` fields ``versions``, ``device`` and ``host`` of a measurement on this machine.

    Args:
        gpu: what is known of the GPU that it runs on; None on the CPU.
    """
    machine = this_machine()
    cpu = {"kind": "cpu", "name": "cpu", "total_bytes": machine.total_bytes}
    host = {name: value for name, value in machine.to_json().items() if name != "host"}  # recordings are shared: no host names
    return {"versions": library_versions(), "device": gpu or cpu, "host": host}


def library_versions() -> dict[str, str]:
    """Return the versions of Headroom and, where they are installed, of torch and transformers; neither is imported."""
    versions = {"headroom": __version__}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return versions

"""What this machine can measure, and why not what it cannot -> plain findings. Imports torch where there is one."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from profiler.capture.nvml import Nvml
from profiler.capture.surroundings import library_versions
from profiler.devices import this_machine
from profiler.storage import RunStore
from profiler.units import format_bytes


def examine() -> dict[str, str]:
    """Return one finding a subject, in words: python, libraries, processor, memory, cuda, nvml, run_store."""
    machine = this_machine()
    return {
        "python": machine.python,
        "libraries": ", ".join(f"{name} {version}" for name, version in library_versions().items()),
        "processor": f"{machine.cpu}, {machine.num_cores} cores",
        "memory": f"{format_bytes(machine.available_bytes)} available of {format_bytes(machine.total_bytes)}",
        "cuda": _cuda(),
        "nvml": _nvml(),
        "run_store": _run_store(RunStore().home),
    }


def _cuda() -> str:
    if importlib.util.find_spec("torch") is None:
        return "none: torch is not installed. Recordings can be opened; to measure, use the Python of your training"
    import torch

    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a CPU build"
        return f"none: {built}, and torch.cuda.is_available() is False"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _nvml() -> str:
    nvml = Nvml.open()
    if not isinstance(nvml, Nvml):
        return nvml.reason
    names = [reading.name for reading in nvml.read()]
    nvml.close()
    return ", ".join(names) or "the driver answers and names no GPU"


def _run_store(home: Path) -> str:
    existing = next(folder for folder in [home.absolute(), *home.absolute().parents] if folder.exists())
    return f"{home.absolute()}" if os.access(existing, os.W_OK) else f"{home.absolute()} cannot be written: set HEADROOM_HOME"

"""What this machine has, in a few lines: processor, memory, GPUs or why there are none, and the libraries that runs use."""

from __future__ import annotations

import pandas as pd

from pages.shared import components, session
from profiler.capture.surroundings import library_versions
from profiler.devices import this_machine
from profiler.units import format_bytes


def facts() -> None:
    """Draw the table of this machine's facts."""
    machine = this_machine()
    rows = [
        ("Processor", f"{machine.cpu}, {machine.num_cores} cores"),
        ("Memory", f"{format_bytes(machine.available_bytes)} free of {format_bytes(machine.total_bytes)}"),
        *_gpus(),
        *((name.capitalize(), version) for name, version in library_versions().items()),
        ("System", f"{machine.platform}, Python {machine.python}"),
        ("Runs are kept in", str(session.store().home.resolve())),
    ]
    frame = pd.DataFrame(rows, columns=["fact", "value"])
    components.table(frame, key="machine", alt="What this machine has", height="content")


def _gpus() -> list[tuple[str, str]]:
    now = session.machine().latest
    rows = [(f"GPU {gpu.index}", f"{gpu.name}{_memory(gpu.used_bytes, gpu.total_bytes)}") for gpu in now.gpus]
    return rows or [("GPU", " ".join(now.reasons))]


def _memory(used_bytes: int | None, total_bytes: int | None) -> str:
    if used_bytes is None or total_bytes is None:
        return ""
    return f", {format_bytes(used_bytes)} used of {format_bytes(total_bytes)}"

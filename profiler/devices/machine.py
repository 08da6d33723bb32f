"""What this machine has, without importing torch: processor and memory."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from profiler.platform_calls import container_memory_bytes


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The computer that this process runs on; in a container, the part of it that the container may use."""

    host: str
    """Its name in the network."""
    platform: str
    """Such as ``Linux-6.1 x86_64``."""
    python: str
    cpu: str
    """The processor's model name."""
    num_cores: int
    """Logical cores that this process may run on."""
    total_bytes: int
    available_bytes: int
    """Memory that a new program can use now without swapping."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def this_machine() -> Machine:
    """Return this machine as it is now."""
    memory = psutil.virtual_memory()
    total_bytes, available_bytes = container_memory_bytes() or (memory.total, memory.available)
    return Machine(
        host=platform.node(),
        platform=f"{platform.system()}-{platform.release()} {platform.machine()}",
        python=platform.python_version(),
        cpu=cpu_name(),
        num_cores=_num_cores(),
        total_bytes=min(memory.total, total_bytes),
        available_bytes=min(memory.available, available_bytes),
    )


@cache
def cpu_name() -> str:
    """Return the processor's model name, or its architecture where the system does not tell it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown processor"


def _num_cores() -> int:
    try:
        return len(psutil.Process().cpu_affinity())
    except (AttributeError, psutil.Error):
        return os.cpu_count() or 1

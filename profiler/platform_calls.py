"""What operating systems do differently: processes in groups, signals, containers.

The only module with calls that only POSIX has, beside `profiler.jobs.preloader`, which is started only where processes can fork.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def own_group() -> dict[str, Any]:
    """Return the arguments of Popen that put a process in a group of its own, apart from the terminal's Ctrl-C."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def can_fork() -> bool:
    """Return whether a process with torch loaded can fork and go on; libraries of other systems than Linux do not stand it."""
    return sys.platform == "linux"


def processes_below(pid: int) -> list[psutil.Process]:
    """Return process ``pid``, all that descend from it, and on POSIX all of its session, whose parents may have ended."""
    found = {}
    try:
        root = psutil.Process(pid)
        found = {process.pid: process for process in [root, *root.children(recursive=True)]}
    except psutil.Error:
        pass
    if sys.platform != "win32":
        found |= {process.pid: process for process in psutil.process_iter() if _session(process.pid) == pid}
    return list(found.values())


def end(process: psutil.Process, *, force: bool) -> None:
    """Ask ``process`` to end (SIGTERM), or end it (SIGKILL); on Windows both end it. One that is gone already is left alone."""
    try:
        if force:
            process.kill()
        else:
            process.terminate()
    except psutil.Error:
        return


def signal_name(number: int) -> str:
    """Return a signal's name, such as ``SIGKILL``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def limit_address_space(num_bytes: int) -> bool:
    """Let this process map at most ``num_bytes`` of memory, for good, and return whether the system holds it to that; Windows cannot."""
    if sys.platform == "win32":
        return False
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))
    except (OSError, ValueError):
        return False
    return sys.platform != "darwin"


def container_memory_bytes() -> tuple[int, int] | None:
    """Return the memory that this process's container may use and what of it is left, in bytes; None without such a limit."""
    for limit, usage in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            most, used = int((_CGROUP / limit).read_text()), int((_CGROUP / usage).read_text())
            return most, max(0, most - used + _reclaimable_bytes(_CGROUP / Path(limit).with_name("memory.stat")))
        except (OSError, ValueError):
            continue
    return None


def _reclaimable_bytes(path: Path) -> int:
    """Return what the container's file cache holds and gives back when memory is short."""
    for line in path.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0


def _session(pid: int) -> int | None:
    if sys.platform == "win32":
        return None
    try:
        return os.getsid(pid)
    except OSError:
        return None

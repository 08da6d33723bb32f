"""A training script as it is -> a recording of it: ``python -m profiler record script.py [args]``."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from profiler.capture.recorder import record
from profiler.errors import SpecError, StorageError


def record_script(script: Path, arguments: Sequence[str], out: Path) -> Path:
    """Run ``script`` as ``python script`` would, recorded, and return the recording's path.

    Whatever the script raises is raised again once the recording is closed; models and steps are found by themselves.

    Raises:
        SpecError: it is not a Python script.
        StorageError: there is no such script.
        CaptureUnavailable: the script runs a profiler of its own.
    """
    if not script.is_file():
        raise StorageError(f"{script} is not there. Give the path of a Python script, then its own arguments.")
    if script.suffix != ".py":
        raise SpecError(f"{script} is not a Python script. Give a .py file; to record part of a program use profiler.record().")
    before = sys.argv, sys.path[:]
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        with record(out, title=script.name) as recorder:
            runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before
    return recorder.path

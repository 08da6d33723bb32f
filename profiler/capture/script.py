"""A training script as it is -> a recording of it: ``python -m profiler record script.py [args]``."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from profiler.capture.recorder import record
from profiler.errors import SpecError, StorageError


@dataclass(frozen=True)
class ScriptRun:
    """A script that was recorded."""

    path: Path
    """The recording: whole, or what there was until the script ended."""
    error: BaseException | None
    """What ended the script, with the traceback that Python itself would show; None where it ended well."""


def record_script(script: Path, arguments: Sequence[str], out: Path) -> ScriptRun:
    """Run ``script`` as ``python script`` would and record it; models and steps are found by themselves.

    Whatever the script raises is returned, not raised, once the recording is closed. ``sys.exit()`` and ``sys.exit(0)`` are good ends.

    Raises:
        SpecError: it is not a Python script.
        StorageError: there is no such script, or the recording cannot be written.
        CaptureUnavailable: another profiler is running.
    """
    if not script.is_file():
        raise StorageError(f"{script} is not there. Give the path of a Python script, then its own arguments.")
    if script.suffix != ".py":
        raise SpecError(f"{script} is not a Python script. Give a .py file; to record part of a program use profiler.record().")
    error: BaseException | None = None
    try:
        with _as_main(script, arguments), record(out, title=script.name) as recorder:
            try:
                runpy.run_path(str(script), run_name="__main__")
            except BaseException as raised:
                if isinstance(raised, SystemExit) and not raised.code:
                    return ScriptRun(recorder.path, None)
                error = raised
                raise
    except BaseException as raised:
        if raised is not error:
            raise
    return ScriptRun(recorder.path, _from_script_on(error, script) if error else None)


@contextmanager
def _as_main(script: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Give the script the arguments and the import path that it has when it is run alone."""
    before = sys.argv, sys.path[:]
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = before


def _from_script_on(error: BaseException, script: Path) -> BaseException:
    """Leave out of the traceback how the script was started."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != str(script):
        frames = frames.tb_next
    return error.with_traceback(frames)

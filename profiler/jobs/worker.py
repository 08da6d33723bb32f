"""The worker process: ``python -m profiler.jobs.worker FOLDER`` runs the job of a run's folder and writes its recording.

Exit codes: 0 done, 2 the job cannot be run (the text is for the user), 1 anything else.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from profiler.errors import HeadroomError, SpecError
from profiler.jobs.folder import RunFolder
from profiler.jobs.run import CAPTURE, LARGEST_BATCH, LONGEST_SEQUENCE, SIMULATE, Order, Outcome
from profiler.tracing.progress import Progress

Engine = Callable[..., Any]
"""``engine(job, path, key=..., progress=...)`` writes the recording to ``path``."""

_ENGINES = {
    CAPTURE: ("profiler.capture.engine", "capture_job"),
    SIMULATE: ("profiler.simulate.engine", "simulate_job"),
    LARGEST_BATCH: ("profiler.planner.engine", "find_largest_batch"),
    LONGEST_SEQUENCE: ("profiler.planner.engine", "find_longest_sequence"),
}
_REPORT_SECONDS = 0.1
_MAX_MESSAGE = 1000


def main(arguments: Sequence[str], engine: Engine | None = None) -> int:
    """Run the job of the folder named by the only argument and return the exit code.

    Args:
        arguments: the folder.
        engine: what runs the job; by default the one that the job names.
    """
    folder = RunFolder(Path(arguments[0]))
    try:
        order = folder.order()
        run = engine or _load_engine(order)
        run(order.job, order.recording, key=order.key, progress=_Reporter(folder))
    except HeadroomError as error:
        return _fail(folder, str(error), 2, refused=isinstance(error, SpecError))
    except Exception as error:  # noqa: BLE001  # whatever happens here is told to the user, with the traceback kept beside it
        traceback.print_exc()
        return _fail(folder, f"{type(error).__name__}: {error}".splitlines()[0], 1)
    folder.write_outcome(Outcome(done=True))
    return 0


class _Reporter:
    """Passes progress on to the run's folder, at most ten times a second."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._due = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _REPORT_SECONDS
            self._folder.write_progress(progress)


def _load_engine(order: Order) -> Engine:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models are built from configurations; nothing is ever fetched
    module, name = _ENGINES[order.engine]
    engine: Engine = getattr(importlib.import_module(module), name)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    return engine


def _fail(folder: RunFolder, message: str, exit_code: int, *, refused: bool = False) -> int:
    folder.write_outcome(Outcome(done=False, message=message[:_MAX_MESSAGE], refused=refused))
    return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

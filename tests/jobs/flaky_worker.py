"""The fake worker, killed the first few times that it gets a job: ``python -m tests.jobs.flaky_worker TIMES FOLDER``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from profiler.jobs.folder import RunFolder
from profiler.jobs.worker import main
from tests.jobs.fake_worker import engine

if __name__ == "__main__":
    folder = RunFolder(Path(sys.argv[2]))
    starts = folder.path.parent / f"starts of {folder.order().job.id}.txt"
    with starts.open("a") as file:
        file.write("x")
    if starts.stat().st_size <= int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(main(sys.argv[2:], engine))

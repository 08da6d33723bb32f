"""The preloader without the libraries, whose workers run the fake engine: ``python -m tests.jobs.fake_preloader``."""

from __future__ import annotations

import sys
from functools import partial

from profiler.jobs import preloader, worker
from tests.jobs.fake_worker import engine

if __name__ == "__main__":
    preloader.MODULES = ()
    preloader.rehearse = lambda: None
    worker.main = partial(worker.main, engine=engine)
    sys.exit(preloader.main())

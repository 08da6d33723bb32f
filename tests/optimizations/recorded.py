"""Code that a test runs -> its recording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from profiler.capture.recorder import Recorder


@contextmanager
def recorded(path: Path) -> Iterator[Recorder]:
    """Record the block as `profiler.record` does, but for tensors that were there before: here those are of other tests."""
    recorder = Recorder(path, counts_existing=False)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop()

"""An inspecting worker that does what the model's name says: ``python -m tests.jobs.fake_inspect MODEL ANSWER``."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass

from profiler.errors import SpecError
from profiler.jobs.inspect import main
from profiler.spec import Model


@dataclass
class Facts:
    name: str
    num_parameters: int = 7
    times_asked: int = 1


def inspect(model: Model) -> Facts:
    if model.name == "refuse":
        raise SpecError("heads=5 do not divide hidden=16. Use a divisor of 16.")
    if model.name == "stumble":
        raise KeyError("n_embd")
    if model.name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if model.name in ("sleep", "hog"):
        kept = b"x" * (400 * 1024**2 if model.name == "hog" else 1)
        time.sleep(60)
        del kept
    return Facts(model.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], inspect))

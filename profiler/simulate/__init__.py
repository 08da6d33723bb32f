"""Runs a workload on fake tensors: its memory on a named GPU or on a CPU, event by event, without its hardware.

The package is also the function that users call, ``profiler.simulate(factory, step, gpu="rtx-4090")``: see `profiler.simulate.program`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A package that can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from profiler.simulate.program import simulate

        return simulate(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable

"""Headroom: where a language model's memory goes, and what each optimization really gives back.

    Job (spec) -> capture | simulate | formats -> Recording -> allocator, analysis -> figures -> pages, cli

Importing this package loads neither torch nor streamlit; `record`, `simulate` and `read_recording` load what they need when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["read_recording", "record", "simulate"]

_HOMES = {"record": "profiler.capture.recorder", "read_recording": "profiler.storage"}
_PACKAGES = {"simulate"}
"""Subpackages that can be called."""


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"profiler.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'profiler' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

"""What recording on GPUs adds to a recording: the allocator's history beside torch.profiler's events."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import torch

from profiler.allocator.recorded_ooms import oom_facts
from profiler.capture.cuda_history import CudaHistory, why_no_history
from profiler.capture.cuda_join import CudaJoin
from profiler.capture.nvml import Nvml
from profiler.tracing.convert import Converter
from profiler.tracing.raw import RawWindow
from profiler.tracing.workspaces import workspace_sizes

_NOT_RESET = "expandable_segments:False"
"""New settings replace all of the old ones but this, which holds until another value is said (c10/core/AllocatorConfig.cpp, parseArgs)."""


class GpuCapture:
    """The allocator's history over one recording; needs CUDA. Where there is no history, events are those of torch.profiler alone."""

    def __init__(self, origin_ns: int, rank: int) -> None:
        self._join = CudaJoin(origin_ns, rank)
        self._history: CudaHistory | None = None
        self._reason: str | None = None
        self._settings: dict[str, Any] = {}

    def start(self, converter: Converter) -> None:
        """Switch the history on and count what exists, right before the first window opens."""
        self._reason = why_no_history()
        if self._reason is None:
            self._history = CudaHistory()
            snapshot = self._history.start()
            self._settings = snapshot.settings
            converter.begin(self._join.begin(snapshot), workspace_sizes())

    def join(self, raw: RawWindow) -> dict[str, pa.Table]:
        """Make a window that just ended exact; return its parts of the tables ``segments`` and ``stacks``."""
        if self._history is None:
            return {}
        try:
            snapshot = self._history.take()
        except RuntimeError as error:  # a GPU that failed answers nothing; what the profiler saw is still worth keeping
            self._history = None
            self._reason = f"The CUDA allocator's history ends early, because the GPU failed: {str(error).splitlines()[0][:200]}"
            return {}
        return self._join.join(raw, snapshot)

    def stop(self) -> None:
        """Switch the history off."""
        if self._history is not None:
            self._history.stop()
            self._history = None

    @property
    def warnings(self) -> list[str]:
        """What the recording cannot show on GPUs, one sentence each."""
        return [*([self._reason] if self._reason else []), *self._join.warnings()]

    def facts(self) -> dict[str, Any]:
        """Return what is known beside the events: the allocator's settings and the times that memory ran out."""
        settings = {"allocator_settings": self._settings} if self._settings else {}
        return settings | oom_facts(self._join.ooms)


@contextmanager
def allocating_with(settings: str) -> Iterator[None]:
    """Have the CUDA allocator follow these settings in the block, beside those of the environment; nothing to do where there are none.

    What is cached is given back before and after, since blocks keep the shape in which they were made.

    Args:
        settings: as PYTORCH_ALLOC_CONF says them.
    """
    if not settings:
        yield
        return
    environment = os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF") or ""
    before = ",".join(filter(None, (_NOT_RESET, environment)))
    try:
        _allocate_with(f"{before},{settings}")
        yield
    finally:
        _allocate_with(before)


def _allocate_with(settings: str) -> None:
    torch.cuda.empty_cache()
    torch._C._accelerator_setAllocatorSettings(settings)


def describe_gpu() -> dict[str, Any]:
    """Return `Metadata.device` for the current GPU."""
    index = torch.cuda.current_device()
    properties = torch.cuda.get_device_properties(index)
    return {
        "kind": "cuda",
        "name": properties.name,
        "index": index,
        "total_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "driver": _driver_version(),
    }


def _driver_version() -> str | None:
    nvml = Nvml.open()
    if not isinstance(nvml, Nvml):
        return None
    version = nvml.driver_version
    nvml.close()
    return version

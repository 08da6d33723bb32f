"""``torch.cuda``'s questions about memory, answered by the simulated GPU's allocator, so that programs that ask run unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch

from profiler.allocator.allocator import CachingAllocator


@contextmanager
def answered_by(allocator: CachingAllocator) -> Iterator[None]:
    """Let ``allocator`` answer in the block; a device that is named in a call is taken for the simulated one."""
    stats = allocator.stats
    answers: dict[str, Callable[..., Any]] = {
        "memory_allocated": lambda *_, **__: stats.allocated_bytes,
        "max_memory_allocated": lambda *_, **__: stats.peak_allocated_bytes,
        "memory_reserved": lambda *_, **__: stats.reserved_bytes,
        "max_memory_reserved": lambda *_, **__: stats.peak_reserved_bytes,
        "memory_stats": lambda *_, **__: stats.to_torch(allocator.inactive_split_bytes),
        "reset_peak_memory_stats": lambda *_, **__: stats.start_peaks(),
        "empty_cache": allocator.empty_cache,
        "synchronize": lambda *_, **__: None,
    }
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        yield

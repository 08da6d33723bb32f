"""An explained out-of-memory error and the recording it is about -> what was alive then, by category and module."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from profiler.allocator.out_of_memory import Explanation
from profiler.analysis.blocks import Blocks
from profiler.analysis.categories import CATEGORIES
from profiler.analysis.columns import read_numbers
from profiler.recording import Category, Recording


@dataclass(frozen=True)
class Alive:
    """Bytes of blocks when memory ran out, largest first; each adds up to what was allocated then."""

    by_category: dict[Category, int]
    by_module: dict[str, int]


def alive_when_memory_ran_out(explanation: Explanation, recording: Recording, blocks: Blocks | None = None) -> Alive:
    """Return who held the memory.

    Args:
        explanation: of a trace that was made by `Trace.from_recording`.
        recording: that recording.
        blocks: the recording's blocks where they were read before.
    """
    blocks = Blocks.of(recording) if blocks is None else blocks
    numbers = read_numbers(recording.events["block"], -1)[blocks.birth_event]
    live = explanation.live_bytes
    held = np.array([live.get(number, 0) for number in numbers.tolist()], np.int64)
    rows = np.flatnonzero(held)
    categories: Counter[Category] = Counter()
    modules: Counter[str] = Counter()
    names = blocks.module[rows].texts().tolist()
    for row, name in zip(rows.tolist(), names, strict=True):
        categories[CATEGORIES[blocks.category[row]]] += int(held[row])
        modules[name or "outside of modules"] += int(held[row])
    return Alive(dict(categories.most_common()), dict(modules.most_common()))

"""An explained out-of-memory error and the recording it is about -> what was alive then, by category, and by module or call."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from profiler.allocator.out_of_memory import Explanation
from profiler.analysis.blocks import Blocks
from profiler.analysis.categories import CATEGORIES
from profiler.analysis.columns import Array, read_numbers
from profiler.analysis.stack_tree import SEPARATOR, call_path, stack_texts
from profiler.analysis.timeline import Timeline
from profiler.recording import Category, Recording


@dataclass(frozen=True)
class Alive:
    """Bytes of blocks when memory ran out, largest first; each adds up to what was allocated then."""

    by_category: dict[Category, int]
    by_module: dict[str, int]
    """Of a recording without modules, as `bytes_by_module` has it, by call stack."""


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
    for row in rows.tolist():
        categories[CATEGORIES[blocks.category[row]]] += int(held[row])
    return Alive(dict(categories.most_common()), bytes_by_module(blocks, rows, held[rows], recording.stacks))


def held_after(timeline: Timeline, event: int, stacks: pa.Table) -> Alive:
    """Return who held the memory right after an event of the recording itself."""
    if event < 0:
        return Alive({}, {})
    rows, blocks = timeline.alive(event), timeline.blocks
    categories = sorted(timeline.categories_at(event).items(), key=lambda item: -item[1])
    return Alive(dict(categories), bytes_by_module(blocks, rows, blocks.bytes[rows], stacks))


def bytes_by_module(blocks: Blocks, rows: Array, num_bytes: Array, stacks: pa.Table) -> dict[str, int]:
    """Return who holds memory, largest first: modules, or where none is known, as in imported snapshots, the ways through own code.

    Args:
        blocks: of the recording.
        rows: places in ``blocks``.
        num_bytes: what each of these holds.
        stacks: the recording's call stacks.
    """
    if (blocks.module.codes[rows] >= 0).any():
        names = [name or "outside of modules" for name in blocks.module[rows].texts().tolist()]
    else:
        numbers = blocks.stack[rows]
        texts = stack_texts(stacks, np.unique(numbers))
        calls = {number: SEPARATOR.join(call_path(texts.get(number, ""))) for number in np.unique(numbers).tolist()}
        names = [calls[number] for number in numbers.tolist()]
    sums: Counter[str] = Counter()
    for name, held in zip(names, num_bytes.tolist(), strict=True):
        sums[name] += held
    return dict(sums.most_common())

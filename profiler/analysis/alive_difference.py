"""Two instants of two recordings -> what is alive in one and not in the other, by call stack and size.

For leaks (a run early and late) and regressions (before and after a change). Blocks are the same where they have the same size and were
allocated from the same functions; line numbers and folders do not count, so that an edit above a call changes nothing. Adapters around a
module do not count either.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from profiler.analysis.blocks import Lane
from profiler.analysis.categories import CATEGORIES
from profiler.analysis.columns import read_numbers
from profiler.analysis.module_tree import unwrapped
from profiler.analysis.stack_tree import call_path
from profiler.analysis.timeline import Timeline
from profiler.recording import Recording

_LINE = re.compile(r":\d+\)$")
_SEPARATOR = " > "
NOT_KNOWN = "(where it was made is not known)"


class Side(NamedTuple):
    """One of the two instants."""

    recording: Recording
    timeline: Timeline
    event: int

    @classmethod
    def at_end(cls, recording: Recording, lane: Lane | None = None) -> Side:
        """Return the instant after the last event of a memory; by default of the first GPU, else the host."""
        timeline = Timeline.of(recording, lane=lane)
        return cls(recording, timeline, timeline.num_events - 1)

    @classmethod
    def at_peak(cls, recording: Recording, lane: Lane | None = None) -> Side:
        """Return the instant of a memory's peak."""
        timeline = Timeline.of(recording, lane=lane)
        return cls(recording, timeline, timeline.peak_event)


class _Kind(NamedTuple):
    """Blocks that count as the same."""

    origin: str
    bytes: int


class _Shown(NamedTuple):
    """How one of them looks."""

    origin: str
    category: str


@dataclass(frozen=True, eq=False)
class AliveDifference:
    """What changed; ``after_bytes - before_bytes`` is the sum of the table's ``difference_bytes``."""

    before_bytes: int
    after_bytes: int
    same_bytes: int
    """Alive in both."""
    table: pd.DataFrame
    """One row a call stack and size whose number differs, largest difference first. Columns: origin, category, bytes (of one block),
    num_before, num_after, difference_bytes (negative: less after)."""

    @property
    def more_bytes(self) -> int:
        """What is alive after and was not before."""
        return int(self.table["difference_bytes"].clip(lower=0).sum())

    @property
    def less_bytes(self) -> int:
        """What was alive before and is not after."""
        return int(-self.table["difference_bytes"].clip(upper=0).sum())


def alive_difference(before: Side, after: Side) -> AliveDifference:
    """Return what differs between what is alive at two instants, each of one memory."""
    (num_before, shown_before), (num_after, shown_after) = _alive(before), _alive(after)
    rows = []
    for kind in num_before.keys() | num_after.keys():
        before_count, after_count = num_before[kind], num_after[kind]
        if before_count != after_count:
            shown = (shown_after if after_count > before_count else shown_before)[kind]
            rows.append((*shown, kind.bytes, before_count, after_count, (after_count - before_count) * kind.bytes))
    rows.sort(key=lambda row: (-abs(row[-1]), row[0], row[2]))
    columns = ["origin", "category", "bytes", "num_before", "num_after", "difference_bytes"]
    return AliveDifference(
        before_bytes=_bytes(num_before),
        after_bytes=_bytes(num_after),
        same_bytes=_bytes(num_before & num_after),
        table=pd.DataFrame(rows, columns=columns).astype({name: np.int64 for name in columns[2:]}),
    )


def _bytes(counts: Counter[_Kind]) -> int:
    return sum(kind.bytes * count for kind, count in counts.items())


def _alive(side: Side) -> tuple[Counter[_Kind], dict[_Kind, _Shown]]:
    """Return how many blocks of each kind are alive, and how to show them."""
    blocks = side.timeline.blocks
    alive = side.timeline.alive(side.event) if side.timeline.num_events else np.empty(0, np.int64)
    columns = np.stack(
        [blocks.stack[alive], *(names.codes[alive] for names in (blocks.module, blocks.tensor, blocks.operator)), blocks.category[alive]]
    )
    different, first, which = np.unique(columns, axis=1, return_index=True, return_inverse=True)
    stacks = _stack_texts(side.recording, different[0])
    shown = [
        _Shown(_origin(stacks.get(int(different[0, place]), ""), side.timeline, int(row)), CATEGORIES[different[4, place]].label)
        for place, row in enumerate(alive[first].tolist())
    ]
    keys = [_SEPARATOR.join(_LINE.sub(")", call) for call in one.origin.split(_SEPARATOR)) for one in shown]
    counts: Counter[_Kind] = Counter()
    shown_of: dict[_Kind, _Shown] = {}
    for place, num_bytes in zip(which.ravel().tolist(), blocks.bytes[alive].tolist(), strict=True):
        kind = _Kind(keys[place], num_bytes)
        counts[kind] += 1
        shown_of.setdefault(kind, shown[place])
    return counts, shown_of


def _stack_texts(recording: Recording, numbers: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> dict[int, str]:
    rows = np.flatnonzero(np.isin(read_numbers(recording.stacks["stack"], -1), numbers))
    found = recording.stacks.take(rows)
    return dict(zip(found["stack"].to_pylist(), found["frames"].to_pylist(), strict=True))


def _origin(frames: str, timeline: Timeline, row: int) -> str:
    """Return where a block was made: its calls, outermost first; without a call stack its module, tensor and operator."""
    if frames:
        return _SEPARATOR.join(call_path(frames))
    blocks = timeline.blocks
    known = [unwrapped(blocks.module.text(row)), unwrapped(blocks.tensor.text(row)), blocks.operator.text(row)]
    return _SEPARATOR.join(name for name in known if name) or NOT_KNOWN

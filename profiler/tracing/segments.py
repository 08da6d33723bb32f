"""What the CUDA allocator has reserved: ranges of addresses that come and go, and the rows that tell it."""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from profiler.recording import SEGMENTS
from profiler.tracing.rows import microseconds, to_columns


class Reserved:
    """The ranges that are reserved on one GPU. Mapped ranges of expandable segments join where they touch, and are cut where unmapped."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._sizes: dict[int, int] = {}
        self.num_bytes = 0

    def ranges(self) -> dict[int, int]:
        """Return bytes by address."""
        return dict(self._sizes)

    def find(self, address: int) -> int | None:
        """Return the start of the range that holds ``address``."""
        place = bisect_right(self._starts, address) - 1
        if place < 0:
            return None
        start = self._starts[place]
        return start if address < start + self._sizes[start] else None

    def add(self, address: int, num_bytes: int, *, joins: bool) -> None:
        """Count a range; one that ``joins`` becomes part of those it touches."""
        self.num_bytes += num_bytes
        end = address + num_bytes
        if joins:
            before = self.find(address - 1)
            if end in self._sizes:
                end += self._drop(end)
            if before is not None:
                self._drop(before)
                address = before
        insort(self._starts, address)
        self._sizes[address] = end - address

    def remove(self, address: int, num_bytes: int) -> None:
        """Count a range no more; what lies beside it in larger ones stays. A range may span several."""
        end = address + num_bytes
        start = self.find(address)
        while start is not None and start < end:
            last = start + self._drop(start)
            for kept, stop in ((start, address), (end, last)):
                if kept < stop:
                    insort(self._starts, kept)
                    self._sizes[kept] = stop - kept
            self.num_bytes -= min(last, end) - max(start, address)
            address = min(last, end)
            start = self.find(address) if address < end else None

    def _drop(self, start: int) -> int:
        self._starts.pop(bisect_right(self._starts, start) - 1)
        return self._sizes.pop(start)


class _Row(NamedTuple):
    time_ns: int
    device: int
    action: str
    address: int | None
    num_bytes: int
    stream: int | None
    stack: int | None


class SegmentRows:
    """The rows of one window about segments, in the order of time on each GPU."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []

    def add(
        self, time_ns: int, device: int, action: str, address: int | None, num_bytes: int, stream: int | None, stack: int | None
    ) -> None:
        """Add a row; what ran out of memory has no address."""
        self._rows.append(_Row(time_ns, device, action, address, num_bytes, stream, stack))

    def to_table(self, origin_ns: int, rank: int) -> pa.Table:
        """Return the rows as part of the recording's segments."""
        rows = sorted(self._rows, key=lambda row: row.time_ns)
        columns = {
            "time_us": microseconds([row.time_ns for row in rows], origin_ns),
            "device": [row.device for row in rows],
            "rank": np.full(len(rows), rank, np.int16),
            "action": [row.action for row in rows],
            "address": [row.address for row in rows],
            "bytes": [row.num_bytes for row in rows],
            "stream": [row.stream for row in rows],
            "stack": [row.stack for row in rows],
        }
        return to_columns(SEGMENTS, columns, len(rows))

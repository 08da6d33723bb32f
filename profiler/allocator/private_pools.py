"""Private pools (CUDA graphs, MemPool), whose memory other requests never share -> streams of their own, which is how they are replayed.

Histories do not name pools. Which ranges of addresses are of one is known of the segments that are there at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from profiler.recording import Metadata

_Column = np.ndarray[Any, np.dtype[np.int64]]

FACT = "private_pools"
"""Under which a recording's facts list its ranges, one `PoolRange` each, as an object."""
MAX_RANGES = 20_000
MAX_POOLS = 4_096
_POOL_BIT = 50
"""Streams are pointers below this bit; above it stands the number of the private pool."""
_MAX_NUMBER = 2**62


class PoolRange(NamedTuple):
    """A segment of a private pool."""

    device: int
    rank: int
    address: int
    bytes: int
    pool: int
    """The first of a device is 1."""


def with_pool(stream: int, pool: int) -> int:
    """Return the stream that stands for a private pool's part of a stream; pool 0 is none."""
    return stream | pool << _POOL_BIT


def without_pool(stream: int) -> int:
    """Return the stream itself."""
    return stream & ((1 << _POOL_BIT) - 1)


def pool_of(stream: int) -> int:
    """Return the private pool whose part of a stream this is; 0 for none."""
    return stream >> _POOL_BIT


def streams_by_pool(streams: _Column, addresses: _Column, ranges: Sequence[PoolRange]) -> _Column:
    """Return the streams of requests, with the pool of each that lies in one of ``ranges``, which do not overlap."""
    if not ranges:
        return streams
    starts, sizes, pools = (np.array(column, np.int64) for column in zip(*sorted(found[2:] for found in ranges), strict=True))
    place = np.maximum(np.searchsorted(starts, addresses, side="right") - 1, 0)
    inside = (addresses >= starts[place]) & (addresses - starts[place] < sizes[place])
    return np.where(inside, streams | pools[place] << _POOL_BIT, streams)


def recorded_pools(metadata: Metadata, device: int, rank: int) -> list[PoolRange]:
    """Return the ranges of private pools that a recording names for one memory; what is none is left out."""
    listed = metadata.facts.get(FACT)
    found = [_range(row) for row in listed[:MAX_RANGES]] if isinstance(listed, list) else []
    return [row for row in found if row is not None and (row.device, row.rank) == (device, rank)]


def _range(row: Any) -> PoolRange | None:
    values: list[Any] = [row.get(name) for name in PoolRange._fields] if isinstance(row, dict) else []
    if not values or not all(type(value) is int and 0 <= value < _MAX_NUMBER for value in values) or values[-1] > MAX_POOLS:
        return None
    return PoolRange(*values)

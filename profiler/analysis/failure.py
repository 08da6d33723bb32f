"""Where memory ran out -> who held it then, by category or module."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from profiler.analysis.attribution import block_table
from profiler.analysis.columns import Array
from profiler.analysis.timeline import Timeline


def alive_at_failure(timeline: Timeline, numbers: Array, live_bytes: Mapping[int, int], by: str) -> pd.DataFrame:
    """Return bytes, num_blocks and share of what was alive by one column of `attribution.alive_at`, largest first.

    Args:
        timeline: the lane.
        numbers: each block's number, by place in `Blocks`.
        live_bytes: the bytes of each block that was alive, by its number; they sum to what was allocated.
        by: such as ``category`` or ``module``.
    """
    members = timeline.members
    alive = members[np.isin(numbers[members], np.fromiter(live_bytes, np.int64, len(live_bytes)))]
    frame = block_table(timeline, alive)
    frame["bytes"] = [live_bytes[number] for number in numbers[alive].tolist()]
    groups = frame.groupby(by, sort=False)["bytes"]
    table = pd.DataFrame({"bytes": groups.sum(), "num_blocks": groups.size()})
    table["share"] = table["bytes"] / max(int(table["bytes"].sum()), 1)
    return table.sort_values("bytes", ascending=False, kind="stable").reset_index()

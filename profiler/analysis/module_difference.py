"""Two instants of two recordings -> what each module holds more or less; numbered layers are taken together, and the sums are exact."""

from __future__ import annotations

import numpy as np
import pandas as pd

from profiler.analysis.alive_difference import Side
from profiler.analysis.module_tree import NO_MODULE, of_any_layer


def module_difference(before: Side, after: Side) -> pd.DataFrame:
    """Return one row a module whose bytes differ: module, before_bytes, after_bytes, difference_bytes; largest difference first.

    ``layers.0.mlp`` and ``layers.1.mlp`` are one row, ``layers.*.mlp``, with and without adapters around them. Blocks without a module have
    a row too, so that ``difference_bytes`` sum to what is alive after minus what was before.
    """
    sides = [_by_module(side) for side in (before, after)]
    table = pd.concat(sides, axis=1, keys=["before_bytes", "after_bytes"]).fillna(0).astype(np.int64)
    table["difference_bytes"] = table["after_bytes"] - table["before_bytes"]
    table = table[table["difference_bytes"] != 0].rename_axis("module").reset_index()
    order = table["difference_bytes"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _by_module(side: Side) -> pd.Series[int]:
    blocks = side.timeline.blocks
    alive = side.timeline.alive(side.event) if side.timeline.num_events else np.empty(0, np.int64)
    names = [of_any_layer(name) or NO_MODULE for name in blocks.module.names] + [NO_MODULE]  # for the code -1
    modules = pd.Series(names, dtype=object).to_numpy()[blocks.module.codes[alive]]
    return pd.Series(blocks.bytes[alive], dtype=np.int64).groupby(modules).sum()

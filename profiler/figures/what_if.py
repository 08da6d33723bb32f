"""Trials of allocator settings -> the table that compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from profiler.allocator.what_if import Trial
from profiler.analysis.allocator_settings import label_of
from profiler.units import format_bytes


def what_if_table(trials: Sequence[Trial], smallest: Mapping[str, int], events: Mapping[str, int]) -> pd.DataFrame:
    """Return one row a setting: what it would have reserved, how it fragments, what it asked of the driver, whether it fits.

    Columns: setting, peak_reserved_bytes, against_default_bytes, peak_allocated_bytes, external_fragmentation_share,
    internal_fragmentation_share, inactive_split_bytes (free in segments that are partly in use; all three where reserved is highest),
    driver_calls (cudaMalloc, or mappings), retries, out_of_memory, smallest_card_bytes. Where memory ran out, the numbers tell how far it
    came.

    Args:
        trials: the settings on one card; the first is what the others are compared with.
        smallest: bytes that the allocator must at least be able to reserve, by the trials' names, where it was found.
        events: the event at which memory ran out, by the trials' names.
    """
    rows = [
        {
            "setting": label_of(trial.name),
            "peak_reserved_bytes": trial.peak_reserved_bytes,
            "against_default_bytes": trial.peak_reserved_bytes - trials[0].peak_reserved_bytes,
            "peak_allocated_bytes": trial.peak_allocated_bytes,
            "external_fragmentation_share": trial.at_peak.external,
            "internal_fragmentation_share": trial.at_peak.internal,
            "inactive_split_bytes": trial.at_peak.inactive_split_bytes,
            "driver_calls": trial.num_segment_allocs,
            "retries": trial.num_retries,
            "out_of_memory": _out_of_memory(trial, events.get(trial.name, -1)),
            "smallest_card_bytes": smallest.get(trial.name),
        }
        for trial in trials
    ]
    table = pd.DataFrame(rows)
    table["smallest_card_bytes"] = table["smallest_card_bytes"].astype("Int64")
    return table


def _out_of_memory(trial: Trial, event: int) -> str:
    if trial.oom is None:
        return "no" if trial.capacity_bytes is not None else "no limit"
    return f"at event {event:,}, {format_bytes(trial.oom.cause.requested_bytes)} requested"

"""Sampled readings: one series a metric and device, reduced with its extremes kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.reduction import pick_extremes
from profiler.analysis.samples import memory_series, read_series
from tests.builders import Tape, small_training


def test_each_metric_of_each_device_is_a_series_of_its_own() -> None:
    tape = Tape()
    for value in (1.0, 2.0):
        tape.sample("rss_bytes", value)
        tape.sample("device_used_bytes", 10 * value, source="nvml", device=0)
        tape.sample("device_used_bytes", 20 * value, source="nvml", device=1)
        tape.sample("power_watts", 99.0, source="nvml", device=0)
        tape.alloc(1)
    recording = tape.recording()

    series = {line.label: line.values.tolist() for line in memory_series(recording)}

    assert series == {
        "Resident set (psutil)": [1.0, 2.0],
        "GPU 0 device used (nvml)": [10.0, 20.0],
        "GPU 1 device used (nvml)": [20.0, 40.0],
    }
    assert len(read_series(recording)) == 4


def test_a_recording_without_samples_has_no_series() -> None:
    assert read_series(small_training()) == []


@given(st.lists(st.floats(-1e12, 1e12), max_size=300), st.integers(8, 60))
def test_reduction_keeps_the_highest_the_lowest_and_the_ends(values: list[float], max_points: int) -> None:
    array = np.array(values)

    rows = pick_extremes(array, max_points)

    assert len(rows) <= max_points
    if values:
        assert (array[rows].max(), array[rows].min()) == (array.max(), array.min())
        assert (rows[0], rows[-1]) == (0, len(values) - 1)

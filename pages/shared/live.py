"""This machine now and over the last minutes: memory, processor, GPUs, the largest processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import streamlit as st

from pages.shared import components, session
from profiler.analysis.columns import Array
from profiler.capture.monitor import MachineNow
from profiler.figures.history import history_figure, history_table
from profiler.recording import HOST
from profiler.units import exact_bytes, format_bytes

_SHOWN = ["Charts", "Numbers"]
_Series = dict[str, Array]


class _Quantity(NamedTuple):
    """What one chart shows."""

    title: str
    unit: str
    lines: Sequence[tuple[str, int, str]]
    """What each line is called, its device, and its metric."""
    limit: float | None


def panel() -> None:
    """Draw the machine as it was read last; nothing is read here."""
    history = session.machine()
    now = history.latest
    if history.failure:
        st.warning(history.failure)
    components.metrics(_metrics(now))
    _draw = _numbers if st.segmented_control("Show", _SHOWN, required=True, **session.linked("show", _SHOWN)) == "Numbers" else _chart
    samples = history.samples()
    for quantity in _quantities(now):
        _draw(quantity, *_series(samples, quantity.lines))
    for reason in now.reasons:
        st.caption(reason)
    st.subheader("Largest processes", anchor=False)
    rows = [(process.name, process.pid, process.rss_bytes) for process in now.largest]
    components.table(
        pd.DataFrame(rows, columns=["process", "pid", "resident_set_bytes"]), key="processes", alt="The processes with the most memory"
    )


def _metrics(now: MachineNow) -> list[components.Metric]:
    used = components.Metric(
        "Memory used",
        format_bytes(now.used_bytes),
        f"{exact_bytes(now.used_bytes)} that a new program could not have.",
        _of(now.total_bytes),
    )
    swap = components.Metric("Swap used", format_bytes(now.swap_used_bytes), "Memory that was moved to disk.", _of(now.swap_total_bytes))
    percent = "not yet read" if now.cpu_percent is None else f"{now.cpu_percent:.0f} %"
    load = components.Metric("Processor", percent, "Of all cores together.", f"{now.num_processes} processes")
    return [used, swap, load, _gpu_metric(now)]


def _gpu_metric(now: MachineNow) -> components.Metric:
    known = [gpu for gpu in now.gpus if gpu.used_bytes is not None]
    if not known:
        return components.Metric("GPU", "none", " ".join(now.reasons), "see below why")
    fullest = max(known, key=lambda gpu: gpu.used_bytes or 0)
    note = _of(fullest.total_bytes) if fullest.total_bytes else ""
    return components.Metric(f"GPU {fullest.index} used", format_bytes(fullest.used_bytes or 0), fullest.name, note)


def _of(total_bytes: int) -> str:
    return f"of {format_bytes(total_bytes)}"


def _quantities(now: MachineNow) -> list[_Quantity]:
    memory = [("Used", HOST, "machine_used_bytes"), ("Swap used", HOST, "swap_used_bytes")]
    found = [
        _Quantity("Memory", "bytes", memory, float(now.total_bytes)),
        _Quantity("Processor", "%", [("All cores", HOST, "cpu_percent")], 100.0),
    ]
    if now.gpus:
        used = [(f"GPU {gpu.index}", gpu.index, "device_used_bytes") for gpu in now.gpus]
        busy = [(f"GPU {gpu.index}", gpu.index, "utilization_percent") for gpu in now.gpus]
        largest = max(float(gpu.total_bytes or 0) for gpu in now.gpus)
        found += [_Quantity("Device used", "bytes", used, largest or None), _Quantity("GPU utilization", "%", busy, 100.0)]
    return found


def _chart(quantity: _Quantity, seconds: Array, series: _Series) -> None:
    figure = history_figure(seconds, series, unit=quantity.unit, title=quantity.title, limit=quantity.limit, theme=session.theme())
    alt = f"{quantity.title} over the last minutes; Numbers shows the same as a table."
    components.chart(figure, key=f"live_{quantity.title}", alt=alt)


def _numbers(quantity: _Quantity, seconds: Array, series: _Series) -> None:
    st.caption(f"{quantity.title} ({quantity.unit})")
    components.table(history_table(seconds, series), key=f"live_table_{quantity.title}", alt=f"{quantity.title} over the last minutes")


def _series(samples: pa.Table, lines: Sequence[tuple[str, int, str]]) -> tuple[Array, _Series]:
    """Return the instants in seconds, and each line's values at them; not a number where there was no reading."""
    times = samples["time_us"].to_numpy()
    metrics, devices, values = samples["metric"].combine_chunks(), samples["device"].to_numpy(), samples["value"].to_numpy()
    codes = {name: code for code, name in enumerate(metrics.dictionary.to_pylist())}
    metric = metrics.indices.to_numpy()
    instants, place = np.unique(times, return_inverse=True)
    series = {}
    for name, device, wanted in lines:
        mine = (metric == codes.get(wanted, -1)) & (devices == device)
        series[name] = np.full(len(instants), np.nan)
        series[name][place[mine]] = values[mine]
    return instants / 1e6, series

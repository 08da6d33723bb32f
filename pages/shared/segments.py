"""The segments that an allocator held at an instant, as a map, and its calls to the driver: shared by Timeline and Allocator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from pages.shared import components, session
from profiler.analysis.allocator_settings import label_of
from profiler.analysis.blocks import Blocks
from profiler.analysis.reserved import ReservedSeries
from profiler.analysis.segment_map import SegmentMap, Use
from profiler.analysis.segment_view import Order, PoolName, SegmentView, segment_pages
from profiler.figures.segments import segments_figure
from profiler.recording import Provenance
from profiler.units import format_bytes

_MAX_CALLS = 5_000
_POOLS: dict[PoolName, str] = {"large": "Large (above 1 MiB)", "small": "Small (up to 1 MiB)"}
_ORDERS: dict[Order, str] = {"size": "Largest first", "free": "Most free first", "address": "By address"}


def draw_map(state: SegmentMap, blocks: Blocks) -> None:
    """Draw the segments as rows of blocks, with the choice of pool, order and page."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        pool: PoolName = _choice("Pool", "pool", _POOLS)
        order: Order = _choice("Order", "order", _ORDERS)
        view = _page(segment_pages(state, pool, order))
    free, waiting = state.bytes_of(Use.FREE), state.bytes_of(Use.WAITING)
    st.markdown(
        f"**{format_bytes(state.reserved_bytes)} reserved** after event {state.event:,}: {format_bytes(state.bytes_of(Use.ALLOCATED))} "
        f"allocated, {format_bytes(waiting)} waiting for a stream, {format_bytes(free)} free."
    )
    components.chart(
        segments_figure(view, blocks, theme=session.theme()),
        key="segments",
        alt="Each segment as a row of blocks; the table under Segments on the page Allocator has the numbers.",
    )
    st.caption(_about(state, view.statement))


def draw_events(series: ReservedSeries, height: int) -> None:
    """Draw what the allocator asked of the driver, call by call, and where memory ran out."""
    changes = series.changes
    st.caption(f"{len(changes):,} calls to the driver, {_whose(series)}; bytes that came or went, and reserved after each.")
    frame = changes.head(_MAX_CALLS)
    frame = frame.assign(address=[hex(address) if address >= 0 else "" for address in frame["address"]])
    components.table(frame, key="allocator_events", alt="What the allocator asked of the driver", height=height)
    if series.failure is not None:
        cause = series.failure.cause
        st.caption(f"Then memory ran out: {format_bytes(cause.requested_bytes)} requested, {format_bytes(cause.reserved_bytes)} reserved.")


def _page(pages: list[SegmentView]) -> SegmentView:
    """Draw the choice of a page, where there are several, and return that page."""
    if len(pages) == 1:
        return pages[0]
    number = st.number_input(f"Page of {len(pages):,}", width=160, **session.linked_number("segments_page", 1, 1, len(pages)))
    return pages[int(number) - 1]


def _about(state: SegmentMap, statement: str) -> str:
    whose = _whose(state)
    text = f"{whose[0].upper()}{whose[1:]}; a row is a segment, its width its bytes; drawn are {statement}."
    if state.provenance is Provenance.SIMULATED:
        text += (
            " New segments' addresses are made up in rising order; a driver's other order matters only between free blocks of equal size."
        )
    if state.failure is not None:
        text += " Memory ran out before this instant; this is how things stood then."
    return text


def _whose(state: SegmentMap | ReservedSeries) -> str:
    """Return where it comes from, with the settings that it was simulated with."""
    simulated = state.provenance is Provenance.SIMULATED
    return f"simulated with {label_of(state.setting)} settings" if simulated else state.provenance.value


def _choice(label: str, name: str, options: Mapping[Any, str]) -> Any:
    names = list(options)
    return st.segmented_control(label, names, format_func=options.__getitem__, required=True, **session.linked(name, names))

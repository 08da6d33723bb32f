"""Segments at an instant -> a map: one row a segment, one rectangle a block, as wide as it is large."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from profiler.analysis.blocks import Blocks
from profiler.analysis.categories import CATEGORIES
from profiler.analysis.segment_map import MappedSegment, Piece, SegmentMap, Use
from profiler.analysis.segment_view import Order, SegmentView
from profiler.figures.axes import base_layout, byte_axis, byte_axis_layout, empty_figure, plain
from profiler.figures.theme import PATTERNS, STACK_ORDER, Theme, ThemeName, theme_named
from profiler.units import exact_bytes, format_bytes

HEIGHT = 520
_BAR = 0.86
"""Of a row; the same for all traces, which plotly otherwise sizes one by one."""
_MIN_ROWS = 6
"""Rows for which there is room at least, so that one segment does not fill the chart."""
_LABELLED = 24
"""Rows that have room for a label beside them."""
_MAX_TABLE = 2_000


def segments_figure(view: SegmentView, blocks: Blocks, *, theme: ThemeName = "light") -> go.Figure:
    """Return the map; an allocated block has its category's colour, free memory is the page's, hatched what waits for a stream.

    Args:
        view: what to draw, a page of `segment_pages`.
        blocks: the recording's blocks, to which the pieces point.
        theme: ``light`` or ``dark``.
    """
    colors = theme_named(theme)
    if not view.segments:
        return empty_figure(colors, HEIGHT, "No segment of this pool is reserved at this instant.")
    groups: dict[str, list[tuple[int, MappedSegment, Piece]]] = defaultdict(list)
    for row, segment in enumerate(view.segments):
        for piece in segment.pieces:
            groups[_kind(piece, blocks)].append((row, segment, piece))
    figure = go.Figure(layout=base_layout(colors, height=HEIGHT, revision="segments"))
    styles = _styles(colors)
    for kind in styles:
        if kind in groups:
            figure.add_trace(_bars(kind, groups[kind], blocks, styles[kind]))
    widest = max(segment.bytes for segment in view.segments)
    figure.update_layout(barmode="overlay", xaxis=byte_axis_layout(byte_axis(widest), "Place in the segment"))
    figure.update_xaxes(range=[0, widest])
    step = -(-len(view.segments) // _LABELLED)
    ticks = list(range(0, len(view.segments), step))
    figure.update_yaxes(
        range=[max(len(view.segments), _MIN_ROWS) - 0.5, -0.5],
        fixedrange=True,
        showgrid=False,
        tickvals=ticks,
        ticktext=[_label(view.segments[row], view.order) for row in ticks],
        title={"text": "Segments", "font": {"size": 13}},
    )
    return figure


def segments_table(state: SegmentMap, limit: int = _MAX_TABLE) -> pd.DataFrame:
    """Return the segments, largest first: address, pool, bytes, allocated, waiting and free bytes, largest free block, blocks, stream."""
    rows = [
        {
            "address": hex(segment.address),
            "pool": "small" if segment.is_small else "large",
            "bytes": segment.bytes,
            "allocated_bytes": sum(piece.bytes for piece in segment.pieces if piece.use is Use.ALLOCATED),
            "waiting_bytes": sum(piece.bytes for piece in segment.pieces if piece.use is Use.WAITING),
            "free_bytes": segment.free_bytes,
            "largest_free_bytes": segment.largest_free_bytes,
            "num_blocks": len(segment.pieces),
            "expandable": segment.is_expandable,
            "stream": segment.stream,
        }
        for segment in sorted(state.segments, key=_largest_first)[:limit]
    ]
    return pd.DataFrame(rows)


def _label(segment: MappedSegment, order: Order) -> str:
    """Return what stands beside a row: where the segment lies if that orders the rows, else how large it is."""
    return hex(segment.address) if order == "address" else format_bytes(segment.bytes)


def _largest_first(segment: MappedSegment) -> tuple[int, int]:
    return -segment.bytes, segment.address


def _kind(piece: Piece, blocks: Blocks) -> str:
    """Return the trace that a piece belongs to: a category's label, or its use."""
    if piece.use is Use.ALLOCATED and piece.place >= 0:
        return CATEGORIES[int(blocks.category[piece.place])].label
    return piece.use.value


def _styles(theme: Theme) -> dict[str, dict[str, object]]:
    """Return the markers of each kind, in the order of the legend."""
    plain_line = {"color": theme.background, "width": 0.5}
    styles: dict[str, dict[str, object]] = {
        category.label: {
            "color": theme.colors[category],
            "line": plain_line,
            "pattern": {"shape": PATTERNS[category], "bgcolor": theme.colors[category], "fgcolor": theme.background, "solidity": 0.18},
        }
        for category in STACK_ORDER
    }
    styles[Use.ALLOCATED.value] = {"color": theme.muted, "line": plain_line}
    hatch = {"shape": "/", "bgcolor": theme.background, "fgcolor": theme.muted, "solidity": 0.4}
    styles[Use.WAITING.value] = {"color": theme.muted, "pattern": hatch, "line": {"color": theme.muted, "width": 0.5}}
    styles[Use.SEVERAL.value] = {"color": theme.strips[1], "pattern": hatch | {"shape": "|"}, "line": {"color": theme.muted, "width": 0.5}}
    styles[Use.FREE.value] = {"color": theme.grid, "line": {"color": theme.muted, "width": 0.5}}
    return styles


def _bars(kind: str, pieces: list[tuple[int, MappedSegment, Piece]], blocks: Blocks, marker: Mapping[str, object]) -> go.Bar:
    return go.Bar(
        name=kind[0].upper() + kind[1:],
        orientation="h",
        width=_BAR,
        base=[piece.offset_bytes for _, _, piece in pieces],
        x=[piece.bytes for _, _, piece in pieces],
        y=[row for row, _, _ in pieces],
        marker=dict(marker),
        customdata=[_details(segment, piece, blocks) for _, segment, piece in pieces],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _details(segment: MappedSegment, piece: Piece, blocks: Blocks) -> str:
    """Return what a rectangle's hover says."""
    what = piece.use.value
    if piece.num_blocks > 1:
        what = f"{piece.num_blocks:,} blocks, {format_bytes(piece.allocated_bytes)} of them allocated"
    lines = [f"<b>{format_bytes(piece.bytes)}</b> {what}", exact_bytes(piece.bytes)]
    if piece.place >= 0:
        names = [CATEGORIES[int(blocks.category[piece.place])].label]
        columns = (blocks.module, blocks.tensor, blocks.operator, blocks.shape, blocks.dtype)
        names += [plain(text) for column in columns if (text := column.text(piece.place))]
        lines.append(", ".join(names))
        lines.append(f"requested {exact_bytes(piece.requested_bytes)}")
    kind = "expandable segment" if segment.is_expandable else "segment"
    lines.append(f"at {hex(segment.address + piece.offset_bytes)}, stream {segment.stream}")
    lines.append(f"{piece.offset_bytes:,} B into a {kind} of {format_bytes(segment.bytes)}, {format_bytes(segment.free_bytes)} free")
    return "<br>".join(lines)

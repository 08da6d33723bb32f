"""A segment map -> pages of as many segments and pieces as a chart can show; what lies on other pages is counted and summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from profiler.analysis.segment_map import MappedSegment, Piece, SegmentMap, Use
from profiler.units import format_bytes

MAX_SEGMENTS = 40
MAX_PIECES = 2_000
"""Rectangles of a chart at most; more cost the browser its smoothness."""
_THIN = 400
"""Pieces thinner than the widest segment's 400th part are drawn together with thin neighbours, where there are too many."""

PoolName = Literal["large", "small"]
Order = Literal["size", "free", "address"]


@dataclass(frozen=True, eq=False)
class SegmentView:
    """The segments that are drawn, and what was left out."""

    segments: tuple[MappedSegment, ...]
    order: Order
    first: int
    """Segments of the pool that come before those drawn."""
    num_segments: int
    """Segments of the pool, drawn or not."""
    rest_bytes: int
    rest_free_bytes: int
    is_joined: bool
    """Thin neighbours are drawn as one."""

    @property
    def num_pieces(self) -> int:
        """Rectangles to draw."""
        return sum(len(segment.pieces) for segment in self.segments)

    @property
    def statement(self) -> str:
        """What was left out, in words."""
        left_out = self.num_segments - len(self.segments)
        text = f"all {self.num_segments:,} segments"
        if left_out:
            rest = f"{format_bytes(self.rest_bytes)}, {format_bytes(self.rest_free_bytes)} of them free"
            places = f"{self.first + 1:,} to {self.first + len(self.segments):,}"
            text = f"{len(self.segments):,} of {self.num_segments:,} segments, {places} in this order; the other {left_out:,} hold {rest}"
        return f"{text}; thin neighbours are drawn as one" if self.is_joined else text


def segment_pages(
    state: SegmentMap, pool: PoolName, order: Order = "size", *, max_segments: int = MAX_SEGMENTS, max_pieces: int = MAX_PIECES
) -> list[SegmentView]:
    """Return the segments of one pool to draw, page by page, each on one of them; of an empty pool one page without segments.

    Args:
        state: all segments.
        pool: blocks up to 1 MiB, or above.
        order: the largest segments first, those with most free bytes first, or by address; those that are equal by address.
        max_segments: rows of a page at most.
        max_pieces: rectangles of a page at most; a single segment has 2 * 400 + 1 at most.
    """
    ranked = sorted((segment for segment in state.segments if segment.is_small == (pool == "small")), key=_ORDERS[order])
    num_bytes = sum(segment.bytes for segment in ranked)
    num_free_bytes = sum(segment.free_bytes for segment in ranked)
    pages: list[SegmentView] = []
    first = 0
    while first < len(ranked) or not pages:
        fitting, is_joined = _fitting(ranked[first : first + max_segments], max_pieces)
        page = SegmentView(
            segments=fitting,
            order=order,
            first=first,
            num_segments=len(ranked),
            rest_bytes=num_bytes - sum(segment.bytes for segment in fitting),
            rest_free_bytes=num_free_bytes - sum(segment.free_bytes for segment in ranked[first : first + len(fitting)]),
            is_joined=is_joined,
        )
        pages.append(page)
        first += len(fitting)
    return pages


def _fitting(segments: Sequence[MappedSegment], max_pieces: int) -> tuple[tuple[MappedSegment, ...], bool]:
    """Return as many of the first segments as a chart can show, one at least, and whether their thin pieces were joined for it."""
    is_joined = sum(len(segment.pieces) for segment in segments) > max_pieces
    thin = max(segment.bytes for segment in segments) / _THIN if is_joined else 0.0
    kept: list[MappedSegment] = []
    num_pieces = 0
    for segment in segments:
        drawn = replace(segment, pieces=_joined(segment.pieces, thin)) if is_joined else segment
        num_pieces += len(drawn.pieces)
        if kept and num_pieces > max_pieces:
            break
        kept.append(drawn)
    return tuple(kept), is_joined


_ORDERS: dict[Order, Callable[[MappedSegment], tuple[int, int]]] = {
    "size": lambda segment: (-segment.bytes, segment.address),
    "free": lambda segment: (-segment.free_bytes, segment.address),
    "address": lambda segment: (segment.address, segment.bytes),
}


def _joined(pieces: tuple[Piece, ...], thin: float) -> tuple[Piece, ...]:
    """Return the pieces with runs of thin ones made one each."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is not None and piece.bytes < thin and (last.bytes < thin or last.num_blocks > 1):
            joined[-1] = Piece(
                last.offset_bytes,
                last.bytes + piece.bytes,
                last.requested_bytes + piece.requested_bytes,
                last.use if last.use is piece.use else Use.SEVERAL,
                -1,
                last.num_blocks + 1,
                last.allocated_bytes + piece.allocated_bytes,
            )
        else:
            joined.append(piece)
    return tuple(joined)

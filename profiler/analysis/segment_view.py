"""A segment map -> as many segments and pieces as a chart can show; the rest is counted and summed."""

from __future__ import annotations

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
Order = Literal["size", "free"]


@dataclass(frozen=True, eq=False)
class SegmentView:
    """The segments that are drawn, and what was left out."""

    segments: tuple[MappedSegment, ...]
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
            text = f"{len(self.segments):,} of {self.num_segments:,} segments; the other {left_out:,} hold {rest}"
        return f"{text}; thin neighbours are drawn as one" if self.is_joined else text


def view_segments(
    state: SegmentMap, pool: PoolName, order: Order = "size", *, max_segments: int = MAX_SEGMENTS, max_pieces: int = MAX_PIECES
) -> SegmentView:
    """Return the segments of one pool to draw, those of one size by address.

    Args:
        state: all segments.
        pool: blocks up to 1 MiB, or above.
        order: the largest segments first, or those with most free bytes.
        max_segments: rows to return at most.
        max_pieces: rectangles to return at most; a single segment has 2 * 400 + 1 at most.
    """
    of_pool = [segment for segment in state.segments if segment.is_small == (pool == "small")]
    ranked = sorted(of_pool, key=_by_free if order == "free" else _by_size)
    chosen = ranked[:max_segments]
    is_joined = sum(len(segment.pieces) for segment in chosen) > max_pieces
    if is_joined:
        thin = max(segment.bytes for segment in chosen) / _THIN
        chosen = [replace(segment, pieces=_joined(segment.pieces, thin)) for segment in chosen]
    kept: list[MappedSegment] = []
    num_pieces = 0
    for segment in chosen:
        num_pieces += len(segment.pieces)
        if kept and num_pieces > max_pieces:
            break
        kept.append(segment)
    rest = ranked[len(kept) :]
    return SegmentView(
        segments=tuple(kept),
        num_segments=len(of_pool),
        rest_bytes=sum(segment.bytes for segment in rest),
        rest_free_bytes=sum(segment.free_bytes for segment in rest),
        is_joined=is_joined,
    )


def _by_size(segment: MappedSegment) -> tuple[int, int]:
    return -segment.bytes, segment.address


def _by_free(segment: MappedSegment) -> tuple[int, int]:
    return -segment.free_bytes, segment.address


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

"""A block view -> the bytes that the canvas component draws: a JSON header and aligned binary columns.

Layout: 4 bytes little-endian length of the header, the header (UTF-8 JSON, padded with spaces so that 4 + length is a multiple of 8), then
the columns that ``header["columns"]`` lists as name -> [type, offset from the end of the header, length]; offsets are multiples of 8.

A drawn block is left, right and bottom (float32; x from ``header["origin"]``), and three indices: its size among ``sizes`` (bytes, exact),
its kind among ``kinds`` (category, module, operator, tensor, shape, dtype, the last five into ``texts``), and its place in `Blocks`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from profiler.analysis.categories import CATEGORIES
from profiler.analysis.columns import Array, Names
from profiler.analysis.timeline import Axis, Timeline
from profiler.analysis.view import BlockView
from profiler.figures.theme import PATTERNS, STACK_ORDER, ThemeName, ink_on, theme_named

_ALIGNMENT = 8
_MAX_TEXT = 120
_MAX_KINDS = 2_000
_MAX_MARKS = 200
_MINIMAP_POINTS = 1_200
_TYPES = {"f4": np.float32, "f8": np.float64, "u2": np.uint16, "u4": np.uint32}


@dataclass(frozen=True)
class CanvasSource:
    """What st.components.v2.component takes."""

    html: str
    css: str
    js: str


def canvas_source() -> CanvasSource:
    """Return the block canvas component's files."""
    folder = resources.files("profiler.figures") / "blocks_canvas"
    html, css, drawing, js = (
        (folder / name).read_text(encoding="utf-8") for name in ("blocks.html", "blocks.css", "drawing.js", "blocks.js")
    )
    return CanvasSource(html, css, f"{drawing}\n{js}")


def window_of(timeline: Timeline, axis: Axis, state: Any) -> tuple[float | None, float | None]:
    """Return the window that the component's state ``view`` asks for; (None, None) where it is of another recording or axis."""
    if not _is_of(timeline, axis, state):
        return None, None
    start, end = state.get("start"), state.get("end")
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (start, end))
    return (float(start), float(end)) if numbers else (None, None)


def event_of(timeline: Timeline, axis: Axis, pick: Any) -> int | None:
    """Return the event that the component's trigger ``pick`` chose; None where it chose none of this recording."""
    if not _is_of(timeline, axis, pick) or not isinstance(pick.get("x"), int | float) or not math.isfinite(pick["x"]):
        return None
    if axis == "time":
        return timeline.nearest_event(pick["x"])
    return min(max(int(pick["x"]), 0), max(timeline.num_events - 1, 0))


def _is_of(timeline: Timeline, axis: Axis, message: Any) -> bool:
    return isinstance(message, dict) and message.get("of") == _identity(timeline, axis)


def _identity(timeline: Timeline, axis: Axis) -> str:
    return f"{timeline.metadata.id}/{timeline.lane.device}/{timeline.lane.rank}/{axis}"


def blocks_payload(timeline: Timeline, view: BlockView, *, theme: ThemeName = "light", cursor: int | None = None) -> bytes:
    """Return the component's data, at most about 400 KB for `view.MAX_BLOCKS` blocks.

    The component sets the state ``view`` 350 ms after the last zoom or pan (read it with `window_of`), so that the server can send a finer
    view, and fires the trigger ``pick`` with ``block`` (its place in `Blocks`; null where there is none) and ``x`` on a click (read it with
    `event_of`). Both carry the identity of what was shown, since they outlive a change of recording or axis.

    Args:
        timeline: the lane.
        view: what to draw.
        theme: whose category colours.
        cursor: an event to mark.
    """
    blocks = timeline.blocks
    sizes, size_index = np.unique(blocks.bytes[view.rows], return_inverse=True)
    kinds, texts, kind_index = _kinds(timeline, view)
    mini_x, mini_y = _minimap(timeline, view)
    columns = {
        "left": ("f4", view.left - view.start),
        "right": ("f4", view.right - view.start),
        "bottom": ("f4", view.bottom),
        "size": ("u2", size_index),
        "kind": ("u2", kind_index),
        "block": ("u4", view.rows),
        "sizes": ("f8", sizes),
        "mini_x": ("f4", mini_x - view.full_start),
        "mini_y": ("f4", mini_y),
    }
    header = _header(timeline, view, theme, cursor) | {"kinds": kinds, "texts": texts}
    return _packed(header, columns)


def _header(timeline: Timeline, view: BlockView, theme: ThemeName, cursor: int | None) -> dict[str, Any]:
    colors = theme_named(theme)
    order = [STACK_ORDER.index(category) for category in CATEGORIES]
    return {
        "version": 1,
        "recording": _identity(timeline, view.axis),
        "axis": view.axis,
        "layout": view.layout,
        "origin": view.start,
        "view": [view.start, view.end],
        "full": [view.full_start, view.full_end],
        "height": view.height_bytes,
        "num_visible": view.num_visible,
        "statement": view.statement,
        "peak": [_place(timeline, view, timeline.peak_event), timeline.peak_bytes],
        "cursor": None if cursor is None else _place(timeline, view, cursor),
        "marks": _marks(timeline, view),
        "theme": {"muted": colors.muted, "text": colors.text, "background": colors.background, "strips": colors.strips},
        "categories": [
            {
                "label": category.label,
                "color": colors.colors[category],
                "ink": ink_on(colors.colors[category]),
                "pattern": PATTERNS[category],
            }
            for category in CATEGORIES
        ],
        "present": sorted((int(code) for code in np.unique(timeline.blocks.category[timeline.members])), key=order.__getitem__),
    }


def _place(timeline: Timeline, view: BlockView, event: int) -> float:
    if event < 0 or view.axis == "event":
        return float(event)
    return float(timeline.blocks.event_us[event])


def _marks(timeline: Timeline, view: BlockView) -> list[list[Any]]:
    """Return steps, and phases where they are few enough to read: kind, name, start, end in the axis' unit."""
    for intervals in (timeline.steps + timeline.phases, timeline.steps):
        bounds = np.array([(interval.start_us, interval.end_us) for interval in intervals]).reshape(-1, 2)
        if view.axis == "event":
            bounds = np.searchsorted(timeline.blocks.event_us, bounds).astype(float)
        inside = np.flatnonzero((bounds[:, 1] >= view.start) & (bounds[:, 0] <= view.end))
        if len(inside) <= _MAX_MARKS:
            return [[intervals[i].kind, intervals[i].name[:_MAX_TEXT], *bounds[i].tolist()] for i in inside]
    return []


def _minimap(timeline: Timeline, view: BlockView) -> tuple[Array, Array]:
    """Return the total over the whole recording, in few points with the peak kept."""
    rows = timeline.pick_rows(_MINIMAP_POINTS, axis=view.axis).rows
    x = rows if view.axis == "event" else timeline.blocks.event_us[rows]
    return np.asarray(x, dtype=float), timeline.total[rows]


def _kinds(timeline: Timeline, view: BlockView) -> tuple[list[list[int]], list[str], Array]:
    """Return the distinct kinds of the drawn blocks, their texts, and each block's kind.

    Where there are too many, the details that differ most are left out, from the last to the first: they are shown when zoomed in.
    """
    blocks, rows = timeline.blocks, view.rows
    columns: list[Names] = [blocks.module, blocks.operator, blocks.tensor, blocks.shape, blocks.dtype]
    codes = np.stack([blocks.category[rows].astype(np.int64), *(column.codes[rows] for column in columns)], axis=1)
    for kept in range(len(columns), -1, -1):
        codes[:, kept + 1 :] = -1
        distinct, index = np.unique(codes, axis=0, return_inverse=True)
        if len(distinct) <= _MAX_KINDS:
            break
    texts: dict[str, int] = {}
    kinds = [
        [int(kind[0]), *(_text_index(texts, column, int(code)) for column, code in zip(columns, kind[1:], strict=True))]
        for kind in distinct
    ]
    return kinds, list(texts), index.reshape(-1)


def _text_index(texts: dict[str, int], column: Names, code: int) -> int:
    if code < 0:
        return -1
    return texts.setdefault(column.names[code][:_MAX_TEXT], len(texts))


def _packed(header: dict[str, Any], columns: dict[str, tuple[str, Array]]) -> bytes:
    parts: list[bytes] = []
    places: dict[str, list[Any]] = {}
    offset = 0
    for name, (kind, values) in columns.items():
        data = np.ascontiguousarray(values, dtype=np.dtype(_TYPES[kind]).newbyteorder("<")).tobytes()
        places[name] = [kind, offset, len(values)]
        parts.append(data + bytes(-len(data) % _ALIGNMENT))
        offset += len(parts[-1])
    text = json.dumps(header | {"columns": places}, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-(4 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(4, "little") + text + b"".join(parts)

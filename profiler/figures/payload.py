"""A block view -> the bytes that the canvas component draws: a JSON header and aligned binary columns.

Layout: 4 bytes little-endian length of the header, the header (UTF-8 JSON, padded with spaces to a multiple of 8 with those 4 bytes), then
the columns that ``header["columns"]`` names with type, offset (from the end of the header) and length.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from profiler.analysis.timeline import Timeline
from profiler.analysis.view import BlockView
from profiler.figures.theme import ThemeName


@dataclass(frozen=True)
class CanvasSource:
    """What st.components.v2.component takes."""

    html: str
    css: str
    js: str


def canvas_source() -> CanvasSource:
    """Return the block canvas component's files."""
    folder = resources.files("profiler.figures") / "blocks_canvas"
    html, css, js = ((folder / f"blocks.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    return CanvasSource(html, css, js)


def blocks_payload(timeline: Timeline, view: BlockView, *, theme: ThemeName = "light", cursor: int | None = None) -> bytes:
    """Return the component's data, at most 400 KB for 20,000 blocks.

    The component sets the state ``view`` to ``{"start": x, "end": x}`` (the axis' unit) 350 ms after the last zoom or pan, so that the
    server can send a finer view, and fires the trigger ``pick`` with ``{"block": place in Blocks, "event": event}`` on a click; block is
    null where no block is under the pointer.

    Args:
        timeline: the lane.
        view: what to draw.
        theme: whose category colours.
        cursor: an event to mark.
    """
    raise NotImplementedError

"""What several pages draw: headings, metrics, refusals, empty states and downloads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from profiler.errors import HeadroomError
from profiler.recording import Category, Metadata, Provenance

_CHART = {"displaylogo": False, "scrollZoom": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"]}
_BADGE_COLORS = {
    Provenance.MEASURED: "green",
    Provenance.SIMULATED: "blue",
    Provenance.ESTIMATED: "gray",
    Provenance.IMPORTED: "violet",
}
_MAX_REASON = 300


class Metric(NamedTuple):
    """One number of a metrics row."""

    label: str
    value: str
    help: str
    note: str = ""


@contextmanager
def refusals_shown() -> Iterator[None]:
    """Show what Headroom refuses as its sentence; anything else is a bug and passes."""
    try:
        yield
    except HeadroomError as error:
        st.error(str(error))


def heading(title: str, question: str) -> None:
    """Draw a page's title and the one question it answers."""
    st.title(title, anchor=False)
    st.caption(question)


def metrics(row: Sequence[Metric]) -> None:
    """Draw up to four numbers; in a narrow window two beside each other."""
    grid = st.grid(4, min_column_width=150, border=True, key="metrics")
    for metric in row:
        with grid.cell():
            st.metric(metric.label, metric.value, help=metric.help)
            st.caption(metric.note or "&nbsp;")


def chart(figure: go.Figure, *, key: str, alt: str, on_click: Callable[[], None] | None = None) -> None:
    """Draw a figure over the full width.

    Args:
        figure: what to draw, with its colours.
        key: keeps the chart in place when it changes.
        alt: its accessible name, which says where the same numbers are as a table.
        on_click: called when a point was clicked.
    """
    if on_click is None:
        st.plotly_chart(figure, width="stretch", key=key, config=_CHART, alt=alt, theme=None)
    else:
        st.plotly_chart(figure, width="stretch", key=key, config=_CHART, alt=alt, theme=None, on_select=on_click, selection_mode="points")


def provenance(metadata: Metadata) -> None:
    """Draw where a recording's numbers come from, and whether it is whole."""
    with st.container(horizontal=True, gap="small"):
        badge(metadata.provenance)
        st.badge(metadata.engine, color="gray")
        outcome(metadata)


def badge(provenance: Provenance) -> None:
    """Draw the word for where numbers come from."""
    st.badge(provenance.value.capitalize(), color=_BADGE_COLORS[provenance])  # type: ignore[arg-type]


def outcome(metadata: Metadata) -> None:
    """Draw how a recorded run ended, where it did not end well."""
    if not metadata.complete:
        st.badge("Incomplete", color="orange")
    error = str(metadata.facts.get("error") or "")
    if error:
        st.badge("Failed", color="red")
        st.caption(f"`{error.splitlines()[0][:_MAX_REASON].replace('`', chr(39))}`")


def download(label: str, make: Callable[[], bytes | str], file_name: str, mime: str) -> None:
    """Draw a download whose content is made when it is asked for."""
    st.download_button(label, make, file_name, mime, on_click="ignore", key=f"download_{file_name}")


def table(frame: pd.DataFrame, *, key: str, alt: str, height: int | Literal["auto", "content"] = "auto") -> None:
    """Draw a table: bytes in full with separators, shares in percent, headers in sentence case; what is not known is an empty cell."""
    columns = {name: _column(str(name)) for name in frame.columns}
    st.dataframe(frame, hide_index=True, column_config=columns, key=key, alt=alt, height=height, placeholder="")


def _column(name: str) -> Any:
    for unit in ("bytes", "us"):
        if name.endswith(f"_{unit}"):
            label = name.removesuffix(f"_{unit}").replace("_", " ").capitalize()
            return st.column_config.NumberColumn(f"{label} ({unit})", format="localized" if unit == "bytes" else "%.1f")
    label = name.removesuffix("_share").replace("_", " ").capitalize()
    if name == "share" or name.endswith("_share"):
        return st.column_config.NumberColumn(label, format="percent")
    if name == "bytes":
        return st.column_config.NumberColumn(label, format="localized")
    return st.column_config.Column(label, width="small" if name == "fact" else None)


def notice(metadata: Metadata) -> None:
    """Draw what to notice in a sample recording, where it says so."""
    if text := metadata.facts.get("notice"):
        with st.expander("What to notice in this sample"):
            st.markdown(str(text))


def warnings(sentences: Sequence[str]) -> None:
    """Draw, folded, what a recording cannot show."""
    if sentences:
        with st.expander(f"What this recording cannot show ({len(sentences)})"):
            for sentence in sentences:
                st.markdown(f"- {sentence}")


def fragment(draw: Callable[[], None], *, every_seconds: float | None = None) -> None:
    """Draw a part of a page that runs again by itself, on its own input or every few seconds."""

    def guarded() -> None:
        with refusals_shown():
            draw()

    st.fragment(guarded, run_every=every_seconds)()


def category_label(name: str) -> str:
    """Return what people call the category of this name."""
    return Category[name].label


def how_to_read(text: str) -> None:
    """Draw the folded explanation at a page's end."""
    with st.expander("How to read this"):
        st.markdown(text)

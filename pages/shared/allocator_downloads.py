"""What can be taken away from Allocator: the comparison, and the chosen setting's numbers over time."""

from __future__ import annotations

import json

import pandas as pd
import streamlit as st

from pages.shared import allocator_charts, components
from pages.shared.allocator_editor import Choice
from profiler.analysis.allocator_settings import label_of
from profiler.analysis.blocks import Lane


def row(recording_id: str, lane: Lane | None, choice: Choice, table: pd.DataFrame) -> None:
    """Draw the downloads; each is made when it is asked for."""
    name = f"{recording_id}-allocator"
    with st.container(horizontal=True, vertical_alignment="center"):
        components.download("Settings as CSV", lambda: str(table.to_csv(index=False)), f"{name}.csv", "text/csv")
        components.download("Settings as JSON", lambda: _json(recording_id, choice, table), f"{name}.json", "application/json")
        components.download("Chart as CSV", lambda: _series(recording_id, lane, choice), f"{name}-chart.csv", "text/csv")
        components.download("Driver calls as CSV", lambda: _calls(recording_id, lane, choice), f"{name}-calls.csv", "text/csv")


def _json(recording_id: str, choice: Choice, table: pd.DataFrame) -> str:
    facts = {
        "recording": recording_id,
        "provenance": "simulated",
        "torch_version": "{}.{}".format(*choice.torch_version),
        "capacity_bytes": choice.capacity_bytes,
        "shown": label_of(choice.shown),
    }
    return json.dumps(facts | {"settings": json.loads(table.to_json(orient="records"))}, indent=1)


def _series(recording_id: str, lane: Lane | None, choice: Choice) -> str:
    series = allocator_charts.simulated(recording_id, lane, choice.shown, choice)
    return str(series.table(series.pick_rows()).to_csv(index=False))


def _calls(recording_id: str, lane: Lane | None, choice: Choice) -> str:
    return str(allocator_charts.simulated(recording_id, lane, choice.shown, choice).changes.to_csv(index=False))

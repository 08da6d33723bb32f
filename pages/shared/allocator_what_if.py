"""The head of Allocator and its table: the same requests under other settings, and on another card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pandas as pd
import streamlit as st

from pages.shared import components, replays, session
from pages.shared.allocator_editor import Choice
from profiler.allocator.what_if import Trial
from profiler.analysis.allocator_settings import DEFAULT, label_of
from profiler.analysis.blocks import Lane
from profiler.analysis.replays import Topic, Tried
from profiler.figures.what_if import what_if_table
from profiler.units import exact_bytes, format_bytes, format_duration_us

Found = TypeVar("Found")

_STEPS_PER_SECOND = 500_000
_AT_ONCE = 1_500_000
"""Steps that are replayed without being asked for: some seconds."""


def metrics(recording_id: str, lane: Lane | None, choice: Choice) -> None:
    """Draw the four numbers: what is reserved by default, with the chosen setting, how it fragments, and whether it fits."""
    recorded = replays.recorded(recording_id, lane)
    default, shown = (trial_of(recording_id, lane, setting, choice).trial for setting in (DEFAULT, choice.shown))
    first = components.Metric("Peak reserved, default", *_peak(default))
    if recorded is not None:
        note = f"simulated with default {format_bytes(default.peak_reserved_bytes)}"
        first = components.Metric(
            f"Peak reserved, {recorded.provenance.value}", format_bytes(recorded.peak_bytes), exact_bytes(recorded.peak_bytes), note
        )
    difference = f"{format_bytes(shown.peak_reserved_bytes - default.peak_reserved_bytes, signed=True)} against the default"
    if shown.oom or default.oom:
        difference = "until memory ran out" if shown.oom else "by default memory runs out"
    components.metrics(
        [
            first,
            components.Metric("Peak reserved, chosen", *_peak(shown)[:2], difference),
            components.Metric(
                "External fragmentation",
                f"{100 * shown.at_peak.external:.1f} %",
                "Of the chosen setting where its reserved memory is highest: the share that no live tensor's block holds.",
                f"default {100 * default.at_peak.external:.1f} %, internal {100 * shown.at_peak.internal:.2f} %",
            ),
            _fit(shown, default, choice),
        ]
    )


def sentence(recording_id: str, lane: Lane | None, choice: Choice) -> str:
    """Return what the chosen setting changes, as a person would say it."""
    default, shown = (trial_of(recording_id, lane, setting, choice).trial for setting in (DEFAULT, choice.shown))
    if default.oom or shown.oom:
        names = [label_of(trial.name) for trial in (default, shown) if trial.oom]
        return f"On this card, {' and '.join(names)} would run out of memory; why is said below."
    saved = default.peak_reserved_bytes - shown.peak_reserved_bytes
    outcome = f"{format_bytes(abs(saved))} {'less' if saved > 0 else 'more'}" if saved else "as much"
    return (
        f"The same requests reserve {format_bytes(default.peak_reserved_bytes)} by default, "
        f"for {format_bytes(default.peak_allocated_bytes)} allocated; "
        f"with `{choice.shown}` it would be {format_bytes(shown.peak_reserved_bytes)}, {outcome}."
    )


def table(recording_id: str, lane: Lane | None, choice: Choice) -> pd.DataFrame:
    """Draw the comparison of all settings and return it."""
    num_events = session.timeline(recording_id, lane).num_events
    tried = _trials(recording_id, lane, choice, num_events)
    smallest = _smallest(recording_id, lane, choice, num_events)
    events = {one.trial.name: one.failure_event for one in tried if one.failure_event is not None}
    frame = what_if_table([one.trial for one in tried], smallest, events)
    components.table(frame, key="what_if", alt="Reserved memory under each setting", height="content")
    st.caption(
        "Simulated. Fragmentation is where reserved is highest: external is reserved and not allocated, internal is allocated and not "
        "requested, and inactive split is what is free in segments that are partly in use: it cannot go back to the driver. "
        "The smallest card is what the allocator must be able to reserve, to 2 MiB; a card needs the CUDA context beside it."
    )
    return frame


def trial_of(recording_id: str, lane: Lane | None, setting: str, choice: Choice) -> Tried:
    """Return the numbers of one of the choice's settings; of those that are drawn, the replay is done already."""
    if setting in (DEFAULT, choice.shown):
        drawn = replays.series(recording_id, lane, setting, choice.torch_version, choice.capacity_bytes)
        assert drawn.trial is not None, "a simulated series has its numbers"
        return Tried(drawn.trial, drawn.failure_event)
    return replays.trial(recording_id, lane, setting, choice.torch_version, choice.capacity_bytes)


def wanted(question: str, num_steps: int, key: str) -> bool:
    """Return whether replays of so many steps are wanted: short ones always are, for long ones the user is asked."""
    if num_steps <= _AT_ONCE:
        return True
    return st.toggle(f"{question} (about {format_duration_us(num_steps / _STEPS_PER_SECOND * 1e6)})", key=key)


def _trials(recording_id: str, lane: Lane | None, choice: Choice, num_events: int) -> list[Tried]:
    """Return the trials of all settings; of a long recording only of those that are drawn, unless all are asked for."""
    settings = choice.settings
    others = len(settings) - 2
    if not wanted(f"Replay {others} other settings", num_events * others, "replay_others"):
        settings = (DEFAULT, choice.shown)
    return _with_progress(settings, "Replaying with {}", lambda setting: trial_of(recording_id, lane, setting, choice))


def _smallest(recording_id: str, lane: Lane | None, choice: Choice, num_events: int) -> dict[str, int]:
    num_replays = Topic.SMALLEST.num_replays * len(choice.settings)
    if not wanted("Find the smallest card", num_replays * num_events, "find_smallest"):
        return {}
    found = _with_progress(
        choice.settings,
        "Finding the smallest card with {}",
        lambda setting: replays.smallest(recording_id, lane, setting, choice.torch_version),
    )
    return dict(zip(choice.settings, found, strict=True))


def _with_progress(settings: Sequence[str], text: str, find: Callable[[str], Found]) -> list[Found]:
    """Return what is found for each setting; between any two the page can be left."""
    bar = st.empty()
    found = []
    try:
        for number, setting in enumerate(settings):
            bar.progress(number / len(settings), text.format(label_of(setting)))
            found.append(find(setting))
    finally:
        bar.empty()
    return found


def _peak(trial: Trial) -> tuple[str, str, str]:
    name = "until memory ran out" if trial.oom else f"{trial.num_segment_allocs:,} calls to the driver"
    return format_bytes(trial.peak_reserved_bytes), f"{exact_bytes(trial.peak_reserved_bytes)}, simulated.", name


def _fit(shown: Trial, default: Trial, choice: Choice) -> components.Metric:
    if choice.capacity_bytes is None:
        text = "The most that live tensors' blocks held at once; with the chosen setting."
        return components.Metric("Peak allocated", format_bytes(shown.peak_allocated_bytes), text, exact_bytes(shown.peak_allocated_bytes))
    verdict = {trial: "out of memory" if trial.oom else "fits" for trial in (default, shown)}
    help_text = "Whether the requests pass where the allocator may reserve this much."
    return components.Metric(
        f"On {format_bytes(choice.capacity_bytes)}", verdict[shown].capitalize(), help_text, f"default: {verdict[default]}"
    )

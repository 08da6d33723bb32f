"""Recordings whose categories are known, written as snapshots without them and read back: how much of the peak the rules name rightly.

Three kinds of evidence are tried: annotations alone (recordings of the CPU have no call stacks), annotations and stacks, and stacks alone,
as most snapshots of others hold them. Without either nothing may be named.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from profiler.analysis.blocks import Blocks
from profiler.analysis.categories import CATEGORIES
from profiler.analysis.timeline import Timeline
from profiler.formats.convert import to_recording
from profiler.formats.export_snapshot import snapshot_of
from profiler.formats.snapshot import read_snapshot
from profiler.recording import Category, Provenance, Recording, Role
from profiler.spec import Toggle
from profiler.storage import read_metadata, read_recording
from sample_traces.recipes import RECIPES
from tests.conftest import ROOT
from tests.formats.call_stacks import simulated_with_stacks
from tests.formats.snapshots import write

SAMPLES = [path for path in sorted((ROOT / "sample_traces").glob("*.headroom")) if read_metadata(path).provenance is Provenance.MEASURED]
JOBS = {recipe.name: replace(recipe.job, device="rtx-4090") for recipe in RECIPES}
JOBS |= {toggle: replace(JOBS["8-whole-batch"], toggles=(Toggle("adamw"), Toggle(toggle))) for toggle in ("checkpointing", "amp")}
_LONG = ("1-gpt2-training", "3-llama-decode", "10-llama-on-an-rtx-4090")


def _read_back(recording: Recording, tmp_path: Path, **changed: Any) -> Recording:
    """Return what is read of a recording that was written without its categories, with these parts of the snapshot changed."""
    events = recording.events
    born = np.isin(events["action"].to_pylist(), ["alloc", "preexisting"])
    weights = born & (events["roles"].to_numpy() & int(Role.PARAMETER) != 0)
    sizes = events["requested_bytes"].to_numpy()[weights]
    path = write(tmp_path / "out.pickle", snapshot_of(recording) | changed)
    return to_recording(read_snapshot(path), parameter_bytes=sizes[sizes > 0].tolist())


def _agreement(recording: Recording, again: Recording) -> float:
    """Return the share of the peak's bytes whose category is the true one.

    Allocations of the history come back in their order. What is older is compared by category and size.
    """
    true, found = Blocks.of(recording), Blocks.of(again)
    peak = int(np.argmax(Timeline.of(recording, true).total))
    alive = (true.birth_event <= peak) & (true.death_event > peak) & (true.bytes > 0)
    own, back = np.flatnonzero(_is_alloc(recording, true) & (true.bytes > 0)), np.flatnonzero(_is_alloc(again, found))
    assert len(own) == len(back)
    agreed = int(true.bytes[own][alive[own] & (true.category[own] == found.category[back])].sum())
    older, older_found = np.flatnonzero(alive & ~_is_alloc(recording, true)), np.flatnonzero(~_is_alloc(again, found))
    wanted, there = _by_category_and_size(true, older), _by_category_and_size(found, older_found)
    agreed += sum(min(count, there[of]) * of[1] for of, count in wanted.items())
    return agreed / int(true.bytes[alive].sum())


def _by_category_and_size(blocks: Blocks, chosen: Any) -> Counter[tuple[int, int]]:
    """Return how many blocks are of each category and size; a size as the allocator rounds it, in which snapshots give it."""
    sizes = -(-blocks.bytes[chosen] // 512) * 512
    return Counter(zip(blocks.category[chosen].tolist(), sizes.tolist(), strict=True))


def _is_alloc(recording: Recording, blocks: Blocks) -> Any:
    return recording.events["action"].to_numpy(zero_copy_only=False)[blocks.birth_event] == "alloc"


def _without_stacks(recording: Recording) -> Recording:
    """Return the recording with nothing in it that could be written as a frame."""
    events = recording.events
    for name in ("module", "operator", "stack"):
        column = events.schema.get_field_index(name)
        field = events.schema.field(column)
        events = events.set_column(column, field, pa.nulls(len(events), field.type))
    return replace(recording, events=events, stacks=recording.stacks.slice(0, 0))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_annotations_alone_give_measured_recordings_their_categories_back(path: Path, tmp_path: Path) -> None:
    recording = read_recording(path)

    assert _agreement(recording, _read_back(recording, tmp_path)) >= 0.9


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in _LONG)) for name in JOBS])
def test_call_stacks_alone_give_samples_their_categories_back(name: str, tmp_path: Path) -> None:
    recording = simulated_with_stacks(JOBS[name], tmp_path)

    both = _agreement(recording, _read_back(recording, tmp_path))
    stacks = _agreement(recording, _read_back(recording, tmp_path, external_annotations=[]))

    print(f"{name}: {both:.2%} with annotations and stacks, {stacks:.2%} with stacks alone")  # noqa: T201  # `pytest -rP` shows them
    assert both >= 0.95
    assert stacks >= 0.95


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_without_annotations_and_call_stacks_nothing_is_named(path: Path, tmp_path: Path) -> None:
    recording = _without_stacks(read_recording(path))

    again = _read_back(recording, tmp_path, external_annotations=[])

    blocks = Blocks.of(again)
    assert {CATEGORIES[code] for code in np.unique(blocks.category[_is_alloc(again, blocks)])} <= {Category.UNKNOWN}

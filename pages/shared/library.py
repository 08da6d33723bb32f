"""The recordings that can be chosen: the samples that come with Headroom and the runs in this machine's store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from profiler.errors import HeadroomError
from profiler.recording import Metadata
from profiler.storage import SUFFIX, RunStore, read_metadata

SAMPLES = Path(__file__).resolve().parents[2] / "sample_traces"


@dataclass(frozen=True)
class Entry:
    """One recording that can be chosen."""

    path: Path
    metadata: Metadata
    is_sample: bool

    @property
    def id(self) -> str:
        """The content hash, which links carry."""
        return self.metadata.id

    @property
    def label(self) -> str:
        """What a list shows: the title, and for runs when they were made."""
        if self.is_sample:
            return f"{self.metadata.title} (sample)"
        return f"{self.metadata.title} ({self.metadata.created[:16].replace('T', ' ')})"


def samples() -> tuple[Entry, ...]:
    """Return the sample recordings by name; files that cannot be read are left out."""
    return _read_samples(SAMPLES)


def entries(store: RunStore) -> list[Entry]:
    """Return the store's runs, newest first, and then the samples; a recording that is both is listed once."""
    runs = [Entry(run.path, run.metadata, is_sample=False) for run in store.list()]
    shipped = {entry.id: entry for entry in samples()}
    return [run for run in runs if run.id not in shipped] + list(shipped.values())


def labels(entries: Iterable[Entry]) -> dict[str, str]:
    """Return what a list shows, by id: where two would look the same, their ids too, since a list knows a choice by its text."""
    entries = list(entries)
    count = Counter(entry.label for entry in entries)
    return {entry.id: entry.label if count[entry.label] == 1 else f"{entry.label} {entry.id}" for entry in entries}


@cache
def _read_samples(folder: Path) -> tuple[Entry, ...]:
    return tuple(entry for path in sorted(folder.glob(f"*{SUFFIX}"), key=_number) if (entry := _sample(path)))


def _number(path: Path) -> tuple[int, str]:
    """Return what samples are sorted by: the number that their names begin with."""
    number = path.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0, path.name


def _sample(path: Path) -> Entry | None:
    try:
        return Entry(path, read_metadata(path), is_sample=True)
    except HeadroomError:
        return None

"""The recordings of several processes -> one recording, each process a rank in it; and one rank of it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from profiler.allocator.private_pools import FACT
from profiler.allocator.recorded_ooms import oom_facts, recorded_ooms
from profiler.errors import SpecError
from profiler.recording import TABLES, Recording

_NUMBERED = {"block", "stack"}
"""Columns whose numbers are counted by each process on its own."""
_TIMES = {"time_us", "start_us", "end_us"}


def merge_ranks(recordings: Mapping[int, Recording], title: str) -> Recording:
    """Return one recording of all ranks, on one clock.

    The ranks' clocks are taken to agree, as they do on one machine; where a recording has no clock, it begins with the others.

    Args:
        recordings: by rank; at least one.
        title: of the whole.
    """
    origins = {rank: _origin_us(recording) for rank, recording in recordings.items()}
    began = min((origin for origin in origins.values() if origin), default=0)
    parts: dict[str, list[pa.Table]] = {name: [] for name in TABLES}
    offsets = dict.fromkeys(_NUMBERED, 0)
    for rank, recording in sorted(recordings.items()):
        later_us = float(origins[rank] - began) if origins[rank] else 0.0
        for name in TABLES:
            parts[name].append(_moved(getattr(recording, name), rank, later_us, offsets))
        offsets["block"] += _largest(recording.events, "block") + 1
        offsets["stack"] += _largest(recording.stacks, "stack") + 1
    first = recordings[min(recordings)].metadata
    facts = {name: value for name, value in first.facts.items() if name != "category_rules"}
    pools = [{**row, "rank": rank} for rank, recording in recordings.items() for row in recording.metadata.facts.get(FACT, [])]
    ooms = [oom._replace(rank=rank) for rank, recording in sorted(recordings.items()) for oom in recorded_ooms(recording.metadata)]
    facts |= {"origin_us": began} | ({FACT: pools} if pools else {}) | oom_facts(ooms)
    metadata = replace(first, id="", title=title, facts=facts, warnings=_warnings(recordings))
    return Recording(metadata=metadata, **{name: _joined(tables) for name, tables in parts.items()})


def of_rank(recording: Recording, rank: int) -> Recording:
    """Return what one process of a recording did, under its rank; what belongs to no process, such as call stacks, stays.

    Raises:
        SpecError: the recording holds nothing of it.
    """
    has = sorted(set(recording.events["rank"].fill_null(0).unique().to_pylist()))
    if rank not in has:
        raise SpecError(
            f"The recording holds nothing of rank {rank}. It has: {', '.join(f'--rank {one}' for one in has[:8]) or 'no events'}."
        )
    tables = {name: getattr(recording, name) for name in TABLES}
    chosen = {name: t.filter(pc.equal(t["rank"].fill_null(0), rank)) for name, t in tables.items() if "rank" in t.column_names}
    return replace(recording, metadata=replace(recording.metadata, id=""), **chosen)


def _moved(table: pa.Table, rank: int, later_us: float, offsets: Mapping[str, int]) -> pa.Table:
    """Return a rank's table with its numbers behind those of the ranks before, its times on the common clock, and its rank."""
    for index, field in enumerate(table.schema):
        column = table[field.name]
        if field.name == "rank":
            moved: Any = pa.repeat(pa.scalar(rank, field.type), len(table))
        elif field.name in _TIMES:
            moved = pc.add(column, later_us)
        elif field.name in _NUMBERED:
            moved = pc.add(column, pa.scalar(offsets[field.name], field.type))
        else:
            continue
        table = table.set_column(index, field, moved)
    return table


def _joined(tables: Iterable[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables).unify_dictionaries()
    return (table.sort_by("time_us") if "time_us" in table.column_names else table).combine_chunks()


def _largest(table: pa.Table, name: str) -> int:
    largest = pc.max(table[name]).as_py()
    return -1 if largest is None else int(largest)


def _origin_us(recording: Recording) -> int:
    origin = recording.metadata.facts.get("origin_us")
    return origin if isinstance(origin, int) else 0


def _warnings(recordings: Mapping[int, Recording]) -> list[str]:
    """Return each warning once, with the ranks it is about where these are not all."""
    ranks: dict[str, list[int]] = {}
    for rank, recording in sorted(recordings.items()):
        for warning in recording.metadata.warnings:
            ranks.setdefault(warning, []).append(rank)
    return [warning if len(of) == len(recordings) else f"Rank {', '.join(map(str, of))}: {warning}" for warning, of in ranks.items()]

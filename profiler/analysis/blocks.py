"""The rows of `Recording.events` -> one row a block: when it was born and freed, how large, and what for.

This is read once; timelines, views and tables select from these columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from profiler.analysis.categories import PHASE_CODES, PHASES, classify
from profiler.analysis.columns import Array, Names, read_names, read_numbers
from profiler.analysis.intervals import phase_ends
from profiler.analysis.owners import with_owners
from profiler.errors import FormatError
from profiler.recording import HOST, PINNED_HOST, Action, Phase, Recording

_ACTIONS = {action.value: code for code, action in enumerate(Action)}
_NO_ACTION = -1
_BIRTHS = [_ACTIONS[Action.ALLOC], _ACTIONS[Action.PREEXISTING]]


class Lane(NamedTuple):
    """One memory: a device as one rank sees it."""

    device: int
    """GPU index; -1 host, -2 pinned host."""
    rank: int

    @property
    def label(self) -> str:
        """What people call it, such as ``GPU 0`` or ``Host, rank 1``."""
        name = {HOST: "Host", PINNED_HOST: "Pinned host"}.get(self.device, f"GPU {self.device}")
        return f"{name}, rank {self.rank}" if self.rank > 0 else name


@dataclass(frozen=True, eq=False)
class Blocks:
    """All blocks of a recording in order of birth, as columns; and the instants of its events."""

    num_events: int
    event_us: Array
    """When each event happened, microseconds, never falling."""
    event_step: Array
    event_phase: Array
    """Codes of `categories.PHASES`."""
    birth_event: Array
    death_event: Array
    """The event at which allocated falls: `num_events` where the block was never freed."""
    birth_us: Array
    death_us: Array
    """The last event's time where the block was never freed."""
    bytes: Array
    """block_bytes where an allocator rounded, else requested_bytes."""
    device: Array
    rank: Array
    step: Array
    phase: Array
    address: Array
    """-1 where unknown."""
    roles: Array
    category: Array
    """Codes of `categories.CATEGORIES`."""
    module: Names
    """The module that ran; of weights, gradients and optimizer states the one that owns them."""
    operator: Names
    dtype: Names
    shape: Names
    tensor: Names
    stack: Array
    """-1 where no call stack was recorded."""
    num_unmatched_frees: int
    """Frees of blocks whose birth was not recorded; they change no total."""

    def __len__(self) -> int:
        return len(self.bytes)

    @classmethod
    def of(cls, recording: Recording) -> Self:
        """Return the blocks of a recording.

        Raises:
            FormatError: a block is born twice or freed before its birth, a size is negative, or a time is not a number.
        """
        events = recording.events
        time_us = _event_times(events)
        action = read_names(events["action"]).mapped(_ACTIONS, _NO_ACTION)
        phase = read_names(events["phase"]).mapped(PHASE_CODES, PHASE_CODES[Phase.OTHER])
        step = read_numbers(events["step"], -1)
        births = np.flatnonzero(np.isin(action, _BIRTHS))
        deaths, num_unmatched = _death_events(read_numbers(events["block"], -1), action, births)
        rank = read_numbers(events["rank"])[births]
        roles = read_numbers(events["roles"])[births]
        tensor = read_names(events["tensor"])[births]
        death_us = np.append(time_us, time_us[-1:])[deaths] if len(time_us) else np.empty(0)
        ends = phase_ends(recording.marks, time_us[births], rank, phase[births])
        within = _same_phase(births, deaths, step, phase) & (death_us <= ends)
        return cls(
            num_events=len(events),
            event_us=time_us,
            event_step=step,
            event_phase=phase,
            birth_event=births,
            death_event=deaths,
            birth_us=time_us[births],
            death_us=death_us,
            bytes=_block_bytes(events, births),
            device=read_numbers(events["device"], HOST)[births],
            rank=rank,
            step=step[births],
            phase=phase[births],
            address=read_numbers(events["address"], -1)[births],
            roles=roles,
            category=classify(roles, phase[births], within, _freed_in(deaths, phase, Phase.BACKWARD)),
            module=with_owners(read_names(events["module"])[births], tensor, roles),
            operator=read_names(events["operator"])[births],
            dtype=read_names(events["dtype"])[births],
            shape=read_names(events["shape"])[births],
            tensor=tensor,
            stack=read_numbers(events["stack"], -1)[births],
            num_unmatched_frees=num_unmatched,
        )

    def lanes(self) -> list[Lane]:
        """Return the memories that hold blocks: GPUs first, then the host, then pinned host memory."""
        first = np.unique(self.device.astype(np.int64) * 2**16 + self.rank, return_index=True)[1]
        lanes = [Lane(int(self.device[row]), int(self.rank[row])) for row in first]
        return sorted(lanes, key=lambda lane: (lane.device < 0, abs(lane.device), lane.rank))

    def phase_of_event(self, event: int) -> Phase:
        """Return the phase that ran at an event."""
        return PHASES[int(self.event_phase[event])]


def _event_times(events: pa.Table) -> Array:
    time_us = read_numbers(events["time_us"], np.nan)
    if not np.isfinite(time_us).all():
        raise FormatError(f"Event {int(np.argmin(np.isfinite(time_us))):,} has no time. Record it again, or export it with times.")
    return np.asarray(np.maximum.accumulate(time_us)) if len(time_us) else time_us


def _block_bytes(events: pa.Table, births: Array) -> Array:
    block_bytes = read_numbers(events["block_bytes"], -1)[births]
    requested = read_numbers(events["requested_bytes"])[births]
    sizes = np.where(block_bytes >= 0, block_bytes, requested)
    if (sizes < 0).any():
        row = int(births[np.argmax(sizes < 0)])
        raise FormatError(f"Event {row:,} allocates {int(sizes.min()):,} bytes. A size is 0 or more; record it again.")
    return sizes


def _death_events(block: Array, action: Array, births: Array) -> tuple[Array, int]:
    """Return each block's event of death, and how many freed blocks have no birth.

    Allocated falls where the free is requested; where only its completion is known, there.
    """
    num_events = len(block)
    lookup = BlockLookup(block[births], births)
    deaths = np.full(len(births), num_events, np.int64)
    unmatched: set[int] = set()
    for kind in (Action.FREE_COMPLETED, Action.FREE_REQUESTED):
        rows = np.flatnonzero(action == _ACTIONS[kind])
        index = lookup.find(block[rows])
        known = index >= 0
        unmatched.update(block[rows[~known]].tolist())
        deaths[index[known]] = rows[known]
    if (deaths < births).any():
        row = int(deaths[np.argmax(deaths < births)])
        raise FormatError(f"Event {row:,} frees block {int(block[row])} before its birth. Export the recording again.")
    return deaths, len(unmatched)


class BlockLookup:
    """From block numbers to their places among the births.

    Args:
        block: the number of each block that was born.
        births: the event at which it was.

    Raises:
        FormatError: a block is born twice.
    """

    def __init__(self, block: Array, births: Array) -> None:
        self._order = np.argsort(block, kind="stable")
        self._sorted = block[self._order]
        twice = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        if len(twice):
            first, second = births[self._order[twice[0]]], births[self._order[twice[0] + 1]]
            raise FormatError(
                f"Block {int(self._sorted[twice[0]])} is born twice, at events {int(first):,} and {int(second):,}. "
                "A block's number is used once; export the recording again."
            )
        self._is_dense = bool(len(block)) and int(self._sorted[-1]) - int(self._sorted[0]) == len(block) - 1

    def find(self, wanted: Array) -> Array:
        """Return the place of each block number among the births, -1 where it was never born."""
        if not len(self._sorted):
            return np.full(len(wanted), -1)
        # Numbers without gaps, which most recordings have, are found where they stand; others by bisection, ten times slower.
        place = wanted - self._sorted[0] if self._is_dense else np.searchsorted(self._sorted, wanted)
        place = np.clip(place, 0, len(self._sorted) - 1)
        return np.where(self._sorted[place] == wanted, self._order[place], -1)


def _freed_in(deaths: Array, phase: Array, wanted: Phase) -> Array:
    """Return whether each block was freed in a phase of this name."""
    return np.asarray(np.append(phase, PHASE_CODES[Phase.OTHER])[deaths] == PHASE_CODES[wanted.value])


def _same_phase(births: Array, deaths: Array, step: Array, phase: Array) -> Array:
    """Return whether each block was freed in the step and phase it was born in."""
    freed = deaths < len(step)
    at = np.where(freed, deaths, births)
    return np.asarray(freed & (step[births] == step[at]) & (phase[births] == phase[at]))

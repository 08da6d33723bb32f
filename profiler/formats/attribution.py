"""Rules and lifetimes -> the roles and the phase of each block of an imported history, and which rule said so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from profiler.formats.history import DeviceHistory
from profiler.formats.lives import PREEXISTING, Lives
from profiler.formats.matching import StackMatcher
from profiler.formats.phases import CODES, EventPhases
from profiler.formats.rules import BEFORE, BlockRule, Rules
from profiler.recording import Phase, Role

Array = np.ndarray[Any, Any]

OLDER = "(older than the recording)"
"""Stands in the place of a tensor's name where a block is that and nothing more is known."""
IN_PLACE = "made in the optimizer's step in place of a parameter"
BY_SIZE = "older, and of the size of a parameter of the named model"
STATE_BY_SIZE = "older, and one more of the size of a parameter of the named model"
NO_RULE = "no rule"
OLDER_ONLY = "older than the recording"


@dataclass(frozen=True, eq=False)
class Attribution:
    """What is known of each block of a device; columns by block number."""

    roles: Array
    phase: Array
    """Codes of `phases.PHASES`: in which it counts as born."""
    rule: Array
    """Places in `names`."""
    names: tuple[str, ...]


def attribute(
    stacks: StackMatcher, history: DeviceHistory, lives: Lives, ran: EventPhases, rules: Rules, parameter_bytes: Iterable[int]
) -> Attribution:
    """Return what the rules say of each block; the first that holds decides.

    Args:
        stacks: those of the snapshot.
        history: the device's history.
        lives: its rows and blocks.
        ran: the phase of each row.
        rules: the rules.
        parameter_bytes: the sizes of the parameters of the model that the user says it was; blocks that are older than the recording and of
            these sizes are its parameters, further ones of these sizes its optimizer's state.
    """
    facts = _Facts(stacks, history, lives, ran)
    num_blocks = len(lives.birth)
    names = [rule.name for rule in rules.blocks] + [IN_PLACE, BY_SIZE, STATE_BY_SIZE, OLDER_ONLY, NO_RULE]
    chosen = np.full(num_blocks, len(names) - 1)
    chosen[facts.older] = names.index(OLDER_ONLY)
    roles = np.zeros(num_blocks, np.int32)
    phase = ran.phase[lives.birth].copy()
    for number, rule in reversed(list(enumerate(rules.blocks))):
        holds = facts.holds(rule)
        chosen[holds] = number
        roles[holds] = int(rule.role)
        phase[holds] = ran.phase[lives.birth[holds]] if rule.phase is None else CODES[rule.phase]
    unknown = chosen == names.index(OLDER_ONLY)
    for place, role in ((BY_SIZE, Role.PARAMETER), (STATE_BY_SIZE, Role.OPTIMIZER_STATE)):
        found = _by_size(lives, unknown, parameter_bytes, 1 if role is Role.PARAMETER else 2)
        chosen[found], roles[found] = names.index(place), int(role)
        unknown = unknown & ~found
    in_place = facts.in_place_of((roles & int(Role.PARAMETER)) != 0)
    chosen[in_place], roles[in_place] = names.index(IN_PLACE), int(Role.PARAMETER)
    return Attribution(roles, phase, chosen, tuple(names))


class _Facts:
    """What rules ask about, by block."""

    def __init__(self, stacks: StackMatcher, history: DeviceHistory, lives: Lives, ran: EventPhases) -> None:
        self._stacks, self._history, self._lives, self._ran = stacks, history, lives, ran
        num_rows = len(lives)
        self.older = lives.action[lives.birth] == PREEXISTING
        self._stack = lives.stack[lives.birth]
        self._born_in = ran.phase[lives.birth]
        self._freed = lives.death < num_rows
        self._death = np.minimum(lives.death, max(num_rows - 1, 0))
        self._freed_in = np.where(self._freed, ran.phase[self._death], -1)
        self._outlives = ~self._freed | (ran.run[self._death] != ran.run[lives.birth])

    def holds(self, rule: BlockRule) -> Array:
        """Return for which blocks all conditions of a rule hold."""
        result = np.ones(len(self.older), bool)
        if rule.born_in is not None:
            result &= self.older if rule.born_in == BEFORE else ~self.older & (self._born_in == CODES[Phase(rule.born_in)])
        if rule.freed_in is not None:
            result &= self._freed_in == CODES[rule.freed_in]
        if rule.outlives_next is not None:
            result &= self._outlives_next(rule.outlives_next)
        if rule.requested_bytes is not None:
            result &= self._lives.requested_bytes[self._lives.birth] == rule.requested_bytes
        if rule.outlives_phase is not None:
            result &= ~self.older & (self._outlives == rule.outlives_phase)
        if rule.frame is not None and result.any():
            result &= self._stacks.matches(rule.frame)[self._stack]
        if rule.metadata is not None:
            result &= self._metadata(rule)
        return result

    def _outlives_next(self, phase: Phase) -> Array:
        """Return which blocks were still there after an interval of this phase that began after their birth."""
        inside = self._ran.phase == CODES[phase]
        rows_before = np.concatenate([[0], np.cumsum(inside)])
        there = rows_before[np.where(self._freed, self._death, len(inside))] > rows_before[self._lives.birth]
        return np.asarray(there & ~(self._freed & inside[self._death]))

    def in_place_of(self, parameters: Array) -> list[int]:
        """Return the blocks that took the place of ``parameters`` in an optimizer's step, or of one that had done so.

        An optimizer that does not update in place makes a new tensor and drops the old one: the place of a parameter that it drops goes to
        the last that it made, of those of that size that are still there.
        """
        lives, updating = self._lives, CODES[Phase.OPTIMIZER]
        size = lives.requested_bytes[lives.birth]
        is_size = np.isin(size, size[parameters & (self._freed_in == updating)])
        made, dropped = (np.flatnonzero(is_size & (phase == updating)) for phase in (self._born_in, self._freed_in))
        blocks, rows = np.concatenate([made, dropped]), np.concatenate([lives.birth[made], lives.death[dropped]])
        order = np.argsort(rows, kind="stable")
        columns = (blocks[order], size[blocks[order]], self._ran.run[rows[order]], order < len(made))
        holders, found = set(np.flatnonzero(parameters).tolist()), []
        there: dict[tuple[int, int], dict[int, None]] = {}
        for block, num_bytes, run, is_new in zip(*(column.tolist() for column in columns), strict=True):
            same = there.setdefault((run, num_bytes), {})
            if is_new:
                same[block] = None
                continue
            same.pop(block, None)
            if block in holders and same:
                successor, _ = same.popitem()
                holders.add(successor)
                found.append(successor)
        return found

    def _metadata(self, rule: BlockRule) -> Array:
        labels = [self._history.labels[name] for name in ("user_metadata", "category") if name in self._history.labels]
        result = np.zeros(len(self.older), bool)
        source = self._lives.source[self._lives.birth]
        for column in labels:
            matches = np.array([*(bool(rule.metadata and rule.metadata.search(name)) for name in column.names), False], bool)
            result |= (source >= 0) & matches[column.codes[source]]
        return result


def _by_size(lives: Lives, unknown: Array, parameter_bytes: Iterable[int], times: int) -> Array:
    """Return which blocks that are older have the sizes of parameters: per size ``times`` as many as there are parameters."""
    requested = lives.requested_bytes[lives.birth]
    found = np.zeros(len(unknown), bool)
    sizes, counts = np.unique(np.fromiter(parameter_bytes, np.int64), return_counts=True)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        found[np.flatnonzero(unknown & (requested == size))[: times * count]] = True
    return found

"""What torch said about a block, and when it lived -> what it is for.

Categories are computed here and nowhere stored. The rules are read from top to bottom; the first that holds names the block.
"""

from __future__ import annotations

import numpy as np

from profiler.analysis.columns import Array
from profiler.recording import Category, Phase, Role

CATEGORIES = tuple(Category)
"""A category's code is its place in this tuple."""

PHASES = tuple(Phase)
"""A phase's code is its place in this tuple."""

CATEGORY_CODES = {category: code for code, category in enumerate(CATEGORIES)}
PHASE_CODES = {phase.value: code for code, phase in enumerate(PHASES)}

_BY_ROLE = (
    (Role.PARAMETER, Category.PARAMETER),
    (Role.MASTER_PARAMETER, Category.MASTER_PARAMETER),
    (Role.BUFFER, Category.BUFFER),
    (Role.GRADIENT, Category.GRADIENT),
    (Role.OPTIMIZER_STATE, Category.OPTIMIZER_STATE),
    (Role.KV_CACHE, Category.KV_CACHE),
    (Role.INPUT, Category.INPUT),
    (Role.COMMUNICATION, Category.COMMUNICATION),
    (Role.WORKSPACE, Category.WORKSPACE),
)
_INFERENCE_OR_FORWARD = (Phase.FORWARD, Phase.PREFILL, Phase.DECODE)


def classify(roles: Array, phase: Array, freed_within_phase: Array, freed_in_backward: Array) -> Array:
    """Return each block's category as its int8 code in `CATEGORIES`.

    Args:
        roles: `Role` bits of the row of birth.
        phase: the phase the block was born in, as codes of `PHASES`.
        freed_within_phase: whether it was freed before that phase's interval ended.
        freed_in_backward: whether it was freed by a backward. What a forward made is freed there only because autograd held it, also
            where no hook was told: the scalars of an expression, the random state of a checkpoint.
    """
    forward = _born_in(phase, *_INFERENCE_OR_FORWARD)
    updating = _born_in(phase, Phase.OPTIMIZER, Phase.ZERO_GRAD) | _has(roles, Role.UPDATE)
    backward = _born_in(phase, Phase.BACKWARD) & ~updating
    saved, hooked = _has(roles, Role.SAVED), _has(roles, Role.SAVED_BY_HOOK)
    rules = [(_has(roles, role), category) for role, category in _BY_ROLE]
    rules += [
        (_has(roles, Role.OUTPUT) & (forward | _born_in(phase, Phase.OTHER)), Category.LOGITS),
        (saved & _born_in(phase, Phase.DATA, Phase.OTHER), Category.INPUT),
        (saved & ~backward & ~updating, Category.ACTIVATION),
        (_has(roles, Role.OFFLOADED), Category.ACTIVATION),
        (_has(roles, Role.RECOMPUTED) & (saved | hooked), Category.ACTIVATION),
        (hooked & forward & ~freed_within_phase, Category.ACTIVATION),
        (hooked & forward, Category.TEMPORARY),
        (forward & freed_in_backward, Category.ACTIVATION),
        (backward, Category.ACTIVATION_GRADIENT),
        (updating, Category.OPTIMIZER_TEMPORARY),
        ((forward | _born_in(phase, Phase.BUILD, Phase.DATA)) & freed_within_phase, Category.TEMPORARY),
    ]
    conditions = [condition for condition, _ in rules]
    choices = [np.int8(CATEGORY_CODES[category]) for _, category in rules]
    return np.select(conditions, choices, np.int8(CATEGORY_CODES[Category.UNKNOWN]))


def _has(roles: Array, role: Role) -> Array:
    return np.asarray((roles & int(role)) != 0)


def _born_in(phase: Array, *phases: Phase) -> Array:
    table = np.zeros(len(PHASES), bool)
    table[[PHASE_CODES[member.value] for member in phases]] = True
    return np.asarray(table[phase])

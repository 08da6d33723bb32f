"""One row a rule: what torch said, where the block was born and how it ended -> its category."""

from __future__ import annotations

import pytest

from profiler.analysis.blocks import Blocks
from profiler.analysis.categories import CATEGORIES
from profiler.recording import Category, Phase, Role
from tests.builders import Tape

KEPT, FREED_IN_PHASE, FREED_IN_BACKWARD = "kept", "freed in the phase", "freed in backward"

RULES = [
    (Role.PARAMETER, Phase.BUILD, KEPT, Category.PARAMETER),
    (Role.MASTER_PARAMETER, Phase.BUILD, KEPT, Category.MASTER_PARAMETER),
    (Role.BUFFER, Phase.BUILD, KEPT, Category.BUFFER),
    (Role.GRADIENT, Phase.BACKWARD, KEPT, Category.GRADIENT),
    (Role.OPTIMIZER_STATE, Phase.OPTIMIZER, KEPT, Category.OPTIMIZER_STATE),
    (Role.KV_CACHE, Phase.DECODE, KEPT, Category.KV_CACHE),
    (Role.INPUT, Phase.DATA, KEPT, Category.INPUT),
    (Role.COMMUNICATION, Phase.BACKWARD, KEPT, Category.COMMUNICATION),
    (Role.WORKSPACE, Phase.FORWARD, KEPT, Category.WORKSPACE),
    (Role.PARAMETER | Role.SAVED, Phase.BUILD, KEPT, Category.PARAMETER),
    (Role.KV_CACHE | Role.OUTPUT, Phase.DECODE, KEPT, Category.KV_CACHE),
    (Role.GRADIENT | Role.SAVED, Phase.FORWARD, KEPT, Category.GRADIENT),
    (Role.OUTPUT, Phase.FORWARD, KEPT, Category.LOGITS),
    (Role.OUTPUT | Role.SAVED, Phase.FORWARD, KEPT, Category.LOGITS),
    (Role.OUTPUT, Phase.PREFILL, FREED_IN_PHASE, Category.LOGITS),
    (Role.OUTPUT, Phase.OTHER, KEPT, Category.LOGITS),
    (Role.OUTPUT, Phase.BACKWARD, KEPT, Category.ACTIVATION_GRADIENT),
    (Role.SAVED, Phase.FORWARD, KEPT, Category.ACTIVATION),
    (Role.SAVED, Phase.FORWARD, FREED_IN_PHASE, Category.ACTIVATION),
    (Role.SAVED, Phase.BACKWARD, KEPT, Category.ACTIVATION_GRADIENT),
    (Role.SAVED, Phase.DATA, KEPT, Category.INPUT),
    (Role.OFFLOADED, Phase.FORWARD, KEPT, Category.ACTIVATION),
    (Role.RECOMPUTED | Role.SAVED, Phase.BACKWARD, KEPT, Category.ACTIVATION),
    (Role.RECOMPUTED | Role.SAVED_BY_HOOK, Phase.BACKWARD, KEPT, Category.ACTIVATION),
    (Role.RECOMPUTED, Phase.BACKWARD, KEPT, Category.ACTIVATION_GRADIENT),
    (Role.SAVED_BY_HOOK, Phase.FORWARD, KEPT, Category.ACTIVATION),
    (Role.SAVED_BY_HOOK, Phase.FORWARD, FREED_IN_PHASE, Category.TEMPORARY),
    (Role.NONE, Phase.FORWARD, FREED_IN_BACKWARD, Category.ACTIVATION),
    (Role.NONE, Phase.BACKWARD, FREED_IN_PHASE, Category.ACTIVATION_GRADIENT),
    (Role.NONE, Phase.OPTIMIZER, FREED_IN_PHASE, Category.OPTIMIZER_TEMPORARY),
    (Role.NONE, Phase.ZERO_GRAD, KEPT, Category.OPTIMIZER_TEMPORARY),
    (Role.NONE, Phase.FORWARD, FREED_IN_PHASE, Category.TEMPORARY),
    (Role.NONE, Phase.PREFILL, FREED_IN_PHASE, Category.TEMPORARY),
    (Role.NONE, Phase.BUILD, FREED_IN_PHASE, Category.TEMPORARY),
    (Role.NONE, Phase.DATA, FREED_IN_PHASE, Category.TEMPORARY),
    (Role.NONE, Phase.FORWARD, KEPT, Category.UNKNOWN),
    (Role.NONE, Phase.OTHER, FREED_IN_PHASE, Category.UNKNOWN),
]


@pytest.mark.parametrize(("roles", "phase", "end", "expected"), RULES, ids=lambda value: getattr(value, "name", str(value)))
def test_a_block_is_named_by_the_first_rule_that_holds(roles: Role, phase: Phase, end: str, expected: Category) -> None:
    tape = Tape()
    with tape.step(0):
        with tape.phase(phase):
            block = tape.alloc(8, roles=roles)
            if end == FREED_IN_PHASE:
                tape.free(block)
            tape.alloc(1, roles=Role.INPUT)
        if end == FREED_IN_BACKWARD:
            with tape.phase(Phase.BACKWARD):
                tape.free(block)

    blocks = Blocks.of(tape.recording())

    assert CATEGORIES[blocks.category[0]] is expected


def test_a_block_that_lives_into_the_next_micro_batch_is_not_temporary() -> None:
    tape = Tape()
    with tape.step(0):
        with tape.phase(Phase.FORWARD):
            block = tape.alloc(8)
        with tape.phase(Phase.BACKWARD):
            tape.alloc(1)
        with tape.phase(Phase.FORWARD):
            tape.free(block)

    assert CATEGORIES[Blocks.of(tape.recording()).category[0]] is Category.UNKNOWN


def test_without_marks_the_events_tell_where_a_phase_ends() -> None:
    tape = Tape()
    with tape.step(0), tape.phase(Phase.FORWARD):
        freed = tape.alloc(8)
        tape.free(freed)
        tape.alloc(8)
    tape.marks.clear()

    names = [CATEGORIES[code] for code in Blocks.of(tape.recording()).category]

    assert names == [Category.TEMPORARY, Category.UNKNOWN]

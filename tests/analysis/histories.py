"""Random recordings for properties: any sequence of births and frees, with phases, roles and modules."""

from __future__ import annotations

from hypothesis import strategies as st

from profiler.recording import Action, Phase, Recording, Role
from tests.builders import Tape

_MODULES = ("", "h.0", "h.0.attn", "h.0.mlp", "h.1.attn", "h.10", "head", "head.deep.er.path")
_ROLES = (Role.NONE, Role.PARAMETER, Role.SAVED, Role.SAVED_BY_HOOK, Role.GRADIENT, Role.OUTPUT, Role.RECOMPUTED | Role.SAVED)


@st.composite
def recordings(draw: st.DrawFn, max_events: int = 40) -> Recording:
    """Return a recording in which every free is of a living block, some births have addresses, and steps follow one another."""
    tape = Tape()
    alive: list[int] = []
    for step in range(draw(st.integers(1, 3))):
        with tape.step(step):
            for phase in draw(st.lists(st.sampled_from(list(Phase)), min_size=1, max_size=4)):
                with tape.phase(phase):
                    _some_events(draw, tape, alive, max_events // 6)
    return tape.recording(warmup_steps=draw(st.integers(0, 3)))


def _some_events(draw: st.DrawFn, tape: Tape, alive: list[int], most: int) -> None:
    for _ in range(draw(st.integers(0, most))):
        if alive and draw(st.booleans()):
            block = alive.pop(draw(st.integers(0, len(alive) - 1)))
            if draw(st.booleans()):
                tape.free(block, Action.FREE_REQUESTED)
            tape.free(block)
        else:
            size = draw(st.integers(0, 2**40))
            columns = {"module": draw(st.sampled_from(_MODULES)), "roles": draw(st.sampled_from(_ROLES))}
            if draw(st.booleans()):
                columns["block_bytes"] = size + draw(st.integers(0, 511))
            alive.append(tape.alloc(size, **columns))

"""Where the peak of a run stands, from recordings whose every event is known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from profiler.analysis.footprint import Footprint, Spread
from profiler.capture.repeated import Repeated
from profiler.recording import Phase, Role
from tests.builders import Tape, small_training


def test_a_peak_carries_what_ran_at_its_event() -> None:
    tape = Tape()
    tape.preexisting(100, roles=Role.PARAMETER)
    with tape.step(0):
        with tape.phase(Phase.FORWARD):
            tape.alloc(50, module="layers.0", operator="aten::mm")
        with tape.phase(Phase.BACKWARD):
            tape.alloc(20, module="head", operator="aten::add")
    found = Footprint.of(tape.recording(warmup_steps=0))

    assert (found.peak.module, found.peak.operator) == ("head", "aten::add")
    assert (found.phases[Phase.FORWARD].module, found.phases[Phase.FORWARD].operator) == ("layers.0", "aten::mm")
    assert found.to_json()["peak_at"] == {"step": 0, "phase": "backward", "module": "head", "operator": "aten::add"}


def test_what_the_event_of_a_peak_does_not_tell_is_null() -> None:
    assert Footprint.of(small_training()).to_json()["peak_at"] == {"step": 1, "phase": "backward", "module": "fc", "operator": None}


def test_an_event_of_the_host_does_not_say_where_the_peak_of_a_gpu_is() -> None:
    tape = Tape()
    tape.alloc(100, device=0, module="fc", operator="aten::mm")
    with tape.step(0), tape.phase(Phase.DATA):
        tape.alloc(10, device=-1, module="loader", operator="aten::empty")
    found = Footprint.of(tape.recording(warmup_steps=0))

    assert (found.peak_bytes, found.peak.module, found.peak.operator) == (100, None, None)


def test_the_operators_that_allocated_are_known() -> None:
    found = Footprint.of(small_training()).operators
    assert found == {"aten::addmm", "aten::mul", "aten::linear", "aten::mm", "aten::_foreach_mul"}


def test_what_a_run_took_when_it_was_repeated_comes_back_from_its_facts() -> None:
    took = Repeated(cpu_seconds=(0.5, 0.25, 1.0), wall_seconds=(2.0,), losses=(3.0, 2.5))
    facts = json.loads(json.dumps(took.to_facts()))
    found = _with_facts(facts)

    assert found.cpu_seconds == Spread(0.5, 0.25, 1.0, 3)
    assert found.wall_seconds == Spread(2.0, 2.0, 2.0, 1)
    assert found.repeated_losses == (3.0, 2.5)


@pytest.mark.parametrize("fact", [None, 5, [1.0], {"cpu_seconds": 5}, {"cpu_seconds": ["1", 2.0], "losses": [True]}])
def test_what_is_no_list_of_times_and_losses_is_not_known(fact: Any) -> None:
    name = next(iter(Repeated().to_facts()))
    found = _with_facts({name: fact})

    assert (found.cpu_seconds, found.wall_seconds, found.repeated_losses) == (None, None, ())


def _with_facts(facts: dict[str, Any]) -> Footprint:
    tape = Tape()
    tape.alloc(10)
    return Footprint.of(tape.recording(facts=facts))

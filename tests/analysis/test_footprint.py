"""Where the peak of a run stands, from recordings whose every event is known."""

from __future__ import annotations

from profiler.analysis.footprint import Footprint
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

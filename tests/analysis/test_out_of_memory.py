"""Who held the memory when it ran out, on a recording made by hand."""

from __future__ import annotations

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.out_of_memory import explain_out_of_memory
from profiler.allocator.trace import Trace
from profiler.analysis.out_of_memory import alive_when_memory_ran_out
from profiler.recording import Category, Phase, Role
from tests.builders import MIB, Tape
from tests.gpu_programs import with_stacks


def test_what_was_alive_is_told_by_category_and_module() -> None:
    tape = Tape(device=0)
    tape.preexisting(40 * MIB, roles=Role.PARAMETER, module="fc")
    with tape.step(0):
        with tape.phase(Phase.FORWARD):
            tape.alloc(20 * MIB, roles=Role.SAVED, module="fc")
            gone = tape.alloc(12 * MIB, module="fc")
            tape.free(gone)
            tape.alloc(10 * MIB, roles=Role.SAVED, module="head")
        with tape.phase(Phase.OPTIMIZER):
            tape.alloc(80 * MIB, roles=Role.OPTIMIZER_STATE)
    recording = tape.recording()
    explanation = explain_out_of_memory(Trace.from_recording(recording), AllocatorConfig(), 100 * MIB, settings={})
    assert explanation is not None
    alive = alive_when_memory_ran_out(explanation, recording)
    assert alive.by_category == {Category.PARAMETER: 40 * MIB, Category.ACTIVATION: 30 * MIB + 0}
    assert sum(alive.by_module.values()) == sum(alive.by_category.values()) == explanation.allocated_bytes
    assert set(alive.by_module) == {"fc", "head"}


def test_without_modules_call_stacks_say_who_held_it() -> None:
    tape = Tape(device=0)
    for size in (30, 20, 10, 80):
        tape.alloc(size * MIB)
    stacks = ["torch/nn/functional.py:9:linear\n/job/model.py:7:forward\n/job/train.py:3:main", "/job/train.py:5:load"]
    recording = with_stacks(tape.recording(), stacks)
    explanation = explain_out_of_memory(Trace.from_recording(recording), AllocatorConfig(), 100 * MIB, settings={})
    assert explanation is not None
    assert alive_when_memory_ran_out(explanation, recording).by_module == {
        "main (train.py:3) > forward (model.py:7) > torch: linear": 40 * MIB,
        "load (train.py:5)": 20 * MIB,
    }

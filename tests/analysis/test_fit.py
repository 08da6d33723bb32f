"""Whether a run fits on a GPU: on recordings whose reserved memory is known, and as laws that hold for all."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.allocator.config import AllocatorConfig
from profiler.analysis.fit import Fit, judge_fit
from profiler.analysis.timeline import Timeline
from profiler.devices import GPUS, Gpu, context_band
from profiler.recording import Category, Phase, Provenance, Recording, Role
from tests.allocator.programs import Program, programs
from tests.builders import MIB, Tape
from tests.gpu_programs import run_on_gpu

T4 = GPUS["t4"]
BAND = context_band(T4)
RESERVED_MIB = 40 + 30 + 20
ORDER = [Fit.DOES_NOT_FIT, Fit.TOO_CLOSE, Fit.FITS]


def with_room(allocator_bytes: int, outside_bytes: int = BAND.high_bytes) -> Gpu:
    """Return a T4 that has so much left for the allocator when so much lies outside of it."""
    return dataclasses.replace(T4, memory_bytes=allocator_bytes + outside_bytes)


def training() -> Recording:
    """A step that reserves 40 + 30 + 20 MiB: each block is large enough for a segment of its own, of its own size."""
    tape = Tape(device=0)
    tape.preexisting(40 * MIB, roles=Role.PARAMETER, module="fc")
    with tape.step(0):
        with tape.phase(Phase.FORWARD):
            saved = tape.alloc(30 * MIB, roles=Role.SAVED, module="fc", operator="aten::mm")
        with tape.phase(Phase.BACKWARD):
            flowing = tape.alloc(20 * MIB, module="fc", operator="aten::mm")
            tape.free(flowing)
            tape.free(saved)
    return tape.recording()


def test_a_run_fits_where_the_most_that_lies_outside_leaves_it_enough() -> None:
    verdict = judge_fit(training(), with_room(RESERVED_MIB * MIB))

    assert verdict.kind is Fit.FITS
    assert verdict.reserved_bytes == RESERVED_MIB * MIB
    assert (verdict.missing_bytes, verdict.num_retries, verdict.first_failure) == (0, 0, None)
    assert verdict.sentences()[0] == "It fits on T4: of 231 MiB, the allocator reserves 90.0 MiB at most, and 0 B or more stay free."


def test_a_run_does_not_fit_where_the_least_that_lies_outside_leaves_it_too_little() -> None:
    verdict = judge_fit(training(), with_room(RESERVED_MIB * MIB - 1, BAND.low_bytes))

    assert verdict.kind is Fit.DOES_NOT_FIT
    assert verdict.missing_bytes == 1
    failure = verdict.first_failure
    assert failure is not None
    assert (failure.step, failure.phase, failure.module, failure.operator) == (0, "backward", "fc", "aten::mm")
    assert failure.explanation.requested_bytes == 20 * MIB
    assert failure.explanation.reserved_bytes == 70 * MIB
    assert failure.alive_bytes == {Category.PARAMETER: 40 * MIB, Category.ACTIVATION: 30 * MIB}
    assert list(failure.alive_bytes) == [Category.PARAMETER, Category.ACTIVATION]


@pytest.mark.parametrize("spare_bytes", [-1, -MIB, BAND.low_bytes - BAND.high_bytes])
def test_between_the_two_it_is_too_close_to_say(spare_bytes: int) -> None:
    verdict = judge_fit(training(), with_room(RESERVED_MIB * MIB + spare_bytes))

    assert verdict.kind is Fit.TOO_CLOSE
    assert verdict.missing_bytes == -spare_bytes
    assert verdict.first_failure is None
    assert verdict.sentences()[0].startswith("Too close to say on T4: the allocator would reserve 90.0 MiB of ")


def test_the_sentences_say_what_failed_and_what_was_alive() -> None:
    text = judge_fit(training(), with_room(RESERVED_MIB * MIB - 2 * MIB, BAND.low_bytes)).sentences()

    assert text[0] == "It does not fit on T4: at least 2.00 MiB more than its 187 MiB would be needed."
    assert text[1] == (
        "The first request that fails comes in step 0, backward, fc, aten::mm. "
        "Largest then: 40.0 MiB of parameters, 30.0 MiB of activations."
    )
    assert text[2].startswith("20.0 MiB were requested; ")
    assert text[-1] == BAND.statement


def test_a_run_that_fits_by_giving_back_cached_memory_says_how_often() -> None:
    tape = Tape(device=0)
    for _ in range(3):
        tape.free(tape.alloc(30 * MIB))
        tape.free(tape.alloc(50 * MIB))
    verdict = judge_fit(tape.recording(), with_room(60 * MIB))

    assert verdict.kind is Fit.FITS
    assert verdict.reserved_bytes == 80 * MIB
    assert verdict.num_retries == 1  # the 50 MiB block stays, and serves the 30 MiB after it
    assert "has to give back cached memory once" in verdict.sentences()[0]


def test_what_fails_before_the_first_step_says_so() -> None:
    tape = Tape(device=0)
    tape.preexisting(100 * MIB, roles=Role.PARAMETER)
    verdict = judge_fit(tape.recording(), with_room(50 * MIB, BAND.low_bytes))

    assert verdict.first_failure is not None
    assert verdict.first_failure.step == -1
    assert verdict.first_failure.alive_bytes == {}
    assert "comes before the first step" in verdict.sentences()[1]
    assert verdict.missing_bytes == 50 * MIB


def test_a_recording_of_host_memory_is_judged_as_if_the_gpu_had_served_it() -> None:
    tape = Tape()
    tape.alloc(30 * MIB)

    assert judge_fit(tape.recording(), T4).reserved_bytes == 30 * MIB


def test_other_settings_of_the_allocator_can_be_judged() -> None:
    tape = Tape(device=0)
    tape.free(tape.alloc(30 * MIB))
    tape.alloc(50 * MIB)
    recording = tape.recording()

    assert judge_fit(recording, T4).reserved_bytes == 80 * MIB
    assert judge_fit(recording, T4, config=AllocatorConfig(expandable_segments=True)).reserved_bytes < 80 * MIB


def test_an_unfinished_recording_is_not_sold_as_the_whole_run() -> None:
    recording = training()
    part = dataclasses.replace(recording, metadata=dataclasses.replace(recording.metadata, complete=False))

    assert "not in this verdict" in judge_fit(part, T4).sentences()[-1]
    assert "not in this verdict" not in judge_fit(recording, T4).sentences()[-1]


def test_a_recording_without_events_fits() -> None:
    assert judge_fit(Tape().recording(), T4).kind is Fit.FITS


@pytest.mark.parametrize("mib", [10, 60, 80, 120, 10_000])
def test_a_verdict_is_plain_data_of_a_prediction(mib: int) -> None:
    verdict = judge_fit(training(), with_room(mib * MIB))
    data = json.loads(json.dumps(verdict.to_json()))

    assert data["provenance"] == Provenance.SIMULATED == "simulated"
    assert data["verdict"] == verdict.kind.value
    assert data["gpu"] == "t4"
    assert (data["first_failure"] is None) == (verdict.kind is not Fit.DOES_NOT_FIT)


@settings(max_examples=60)
@given(programs, st.integers(1, 300))
def test_the_verdict_lies_between_what_is_reserved_without_a_limit_and_what_is_alive_at_once(program: Program, mib: int) -> None:
    recording = run_on_gpu([("alloc", 1, 0), *program]).recording
    gpu = with_room(mib * MIB)
    verdict = judge_fit(recording, gpu)

    if verdict.reserved_bytes <= mib * MIB:
        assert verdict.kind is Fit.FITS
    if Timeline.of(recording).total.max() > gpu.memory_bytes - BAND.low_bytes:
        assert verdict.kind is Fit.DOES_NOT_FIT
    assert (verdict.missing_bytes > 0) == (verdict.kind is not Fit.FITS)
    assert (verdict.first_failure is not None) == (verdict.kind is Fit.DOES_NOT_FIT)


@settings(max_examples=60)
@given(programs, st.integers(1, 100))
def test_with_what_is_missing_it_no_longer_certainly_fails(program: Program, mib: int) -> None:
    recording = run_on_gpu([("alloc", 1, 0), *program]).recording
    gpu = with_room(mib * MIB)
    missing_bytes = judge_fit(recording, gpu).missing_bytes

    assert judge_fit(recording, dataclasses.replace(gpu, memory_bytes=gpu.memory_bytes + missing_bytes)).kind is not Fit.DOES_NOT_FIT


@settings(max_examples=60)
@given(st.lists(st.integers(1, 64 * MIB), min_size=1, max_size=20), st.integers(1, 400), st.integers(0, 400))
def test_more_memory_is_never_worse_for_a_program_that_frees_nothing(sizes: list[int], mib: int, more: int) -> None:
    """For others it can be, rarely: memory that was given back at another time leaves other holes."""
    tape = Tape(device=0)
    for size in sizes:
        tape.alloc(size)
    small, large = (judge_fit(tape.recording(), with_room(room * MIB)) for room in (mib, mib + more))

    assert ORDER.index(small.kind) <= ORDER.index(large.kind)
    assert small.missing_bytes >= large.missing_bytes or small.kind is not large.kind

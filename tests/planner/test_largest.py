"""The largest batch and the longest sequence that fit: with recordings of known size, and with a real model on a small card."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from profiler.analysis.fit import Fit
from profiler.devices import GPUS, Gpu, context_band
from profiler.models.catalogue import facts_of
from profiler.planner.largest import MAX_SIMULATIONS, SEQ_STEP, Bound, Probe, largest_batch, longest_sequence
from profiler.recording import Recording
from profiler.spec import MAX_BATCH, Job, Model, Toggle, Workload, WorkloadKind
from tests.builders import MIB, Tape

T4 = GPUS["t4"]
BAND = context_band(T4)
JOB = Job(model=Model(name="tiny-llama"), workload=Workload(seq=64, steps=7), toggles=(Toggle("adamw"),))
POSITIONS = facts_of(JOB.model).max_positions
assert POSITIONS is not None


def with_room(allocator_bytes: int) -> Gpu:
    """Return a T4 that has so much left for the allocator, even if all that lies outside of it is as large as it gets."""
    return dataclasses.replace(T4, memory_bytes=allocator_bytes + BAND.high_bytes)


def needing(num_mib: Callable[[Workload], int], seen: list[Job] | None = None) -> Callable[[Job], Recording]:
    """Return a simulation in which a workload takes so many MiB; from 20 MiB on a block has a segment of its own size."""

    def simulate(job: Job) -> Recording:
        if seen is not None:
            seen.append(job)
        tape = Tape(device=0)
        with tape.step(0):
            tape.alloc((20 + num_mib(job.workload)) * MIB)
        return tape.recording()

    return simulate


def test_the_largest_batch_is_the_last_that_fits() -> None:
    found = largest_batch(JOB, with_room(100 * MIB), simulate=needing(lambda work: 7 * work.batch))

    assert found.value == 11  # 20 + 7 * 11 = 97; the twelfth needs 104
    assert found.bound is Bound.MEMORY
    assert found.next_probe is not None
    assert found.next_probe.value == 12
    assert found.sentences()[0] == "The largest batch that fits on T4 is 11, because the next one does not certainly fit."
    assert found.sentences()[1].startswith("At batch 12: ")


def test_every_candidate_runs_one_step_that_counts_on_the_gpu_that_is_asked_about() -> None:
    seen: list[Job] = []
    largest_batch(JOB, with_room(60 * MIB), simulate=needing(lambda work: work.batch, seen))
    prefill = dataclasses.replace(JOB, workload=dataclasses.replace(JOB.workload, kind=WorkloadKind.PREFILL))
    largest_batch(prefill, with_room(60 * MIB), simulate=needing(lambda work: work.batch, seen))

    assert {(job.workload.kind, job.workload.steps, job.workload.warmup_steps) for job in seen} == {
        (WorkloadKind.TRAIN, 1, 1),
        (WorkloadKind.PREFILL, 1, 0),
    }
    assert {(job.device, job.model, job.toggles, job.workload.seq) for job in seen} == {("t4", JOB.model, JOB.toggles, 64)}


def test_batches_can_be_cut_into_the_micro_batches() -> None:
    job = dataclasses.replace(JOB, workload=Workload(batch=4, micro_batches=4))
    found = largest_batch(job, with_room(100 * MIB), simulate=needing(lambda work: 7 * work.batch))

    assert (found.value, found.step) == (8, 4)


def test_where_not_even_the_smallest_fits_it_says_so_and_why() -> None:
    found = largest_batch(
        dataclasses.replace(JOB, workload=Workload(batch=9)), with_room(25 * MIB), simulate=needing(lambda work: 7 * work.batch)
    )

    assert found.value is None
    assert found.sentences()[0] == "Not even batch 1 fits on T4."
    assert found.sentences()[1].startswith("At batch 1: Too close to say on T4")
    assert found.to_json()["value"] is None


def test_what_is_too_close_to_say_is_not_taken_for_fitting() -> None:
    card = dataclasses.replace(T4, memory_bytes=100 * MIB + (BAND.low_bytes + BAND.high_bytes) // 2)
    found = largest_batch(JOB, card, simulate=needing(lambda work: 80 if work.batch > 1 else 0))

    assert found.value == 1
    assert found.next_probe is not None
    assert found.next_probe.verdict.kind is Fit.TOO_CLOSE


def test_the_longest_sequence_is_a_multiple_of_the_step() -> None:
    found = longest_sequence(JOB, with_room(100 * MIB), simulate=needing(lambda work: work.seq // 10))

    assert found.value == 768  # 20 + 76 = 96; 832 tokens need 103
    assert found.step == SEQ_STEP


@pytest.mark.parametrize(("kind", "tokens"), [(WorkloadKind.TRAIN, POSITIONS), (WorkloadKind.DECODE, POSITIONS - 10)])
def test_the_models_positions_are_a_bound_that_is_named(kind: WorkloadKind, tokens: int) -> None:
    job = dataclasses.replace(JOB, workload=Workload(kind=kind, new_tokens=10))
    found = longest_sequence(job, with_room(100 * MIB), simulate=needing(lambda work: 1))

    assert (found.value, found.bound) == (tokens, Bound.POSITIONS)
    assert found.sentences() == [f"The longest sequence that fits on T4 is {tokens:,}, because the model has no more positions."]


def test_a_card_that_nothing_fills_is_bounded_by_what_a_job_may_ask_for() -> None:
    found = largest_batch(JOB, with_room(100 * MIB), simulate=needing(lambda work: 1))

    assert (found.value, found.bound) == (MAX_BATCH, Bound.SEARCH)
    assert len(found.probes) <= MAX_SIMULATIONS


def test_a_search_that_ran_out_of_simulations_says_so_and_what_is_certain_so_far() -> None:
    found = largest_batch(JOB, with_room(100 * MIB), simulate=needing(lambda work: 7 * work.batch), max_simulations=2)

    assert found.bound is Bound.SIMULATIONS
    assert found.value == 4
    assert len(found.probes) == 2


def test_every_candidate_is_told_and_what_the_listener_raises_ends_the_search() -> None:
    told: list[Probe] = []

    def leave(probe: Probe) -> None:
        told.append(probe)
        if len(told) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        largest_batch(JOB, with_room(100 * MIB), simulate=needing(lambda work: 7 * work.batch), progress=leave)
    assert len(told) == 2


@given(
    room=st.integers(0, 5000),
    steps=st.lists(st.integers(0, 400), min_size=64, max_size=64),
    start=st.integers(1, 70),
)
@example(room=0, steps=[0] * 63 + [1], start=1)
@example(room=5000, steps=[0] * 63 + [1], start=1)
@example(room=1, steps=[0] * 63 + [1], start=1)
@settings(max_examples=40, deadline=None)
def test_whatever_the_memory_does_as_long_as_it_does_not_fall_the_last_that_fits_is_found(room: int, steps: list[int], start: int) -> None:
    """Memory is counted in 2 MiB, as segments of this size are."""
    needs = [sum(steps[: number + 1]) for number in range(64)]

    def num_mib(work: Workload) -> int:
        return 2 * needs[work.batch - 1] if work.batch <= 64 else 10**6

    job = dataclasses.replace(JOB, workload=Workload(batch=start))
    found = largest_batch(job, with_room((20 + 2 * room) * MIB), simulate=needing(num_mib))
    expected = sum(need <= room for need in needs)

    assert found.value == (expected or None)
    assert found.bound is Bound.MEMORY
    assert len({probe.value for probe in found.probes}) == len(found.probes) <= MAX_SIMULATIONS


def test_a_real_model_fits_up_to_the_batch_that_is_found_and_not_beyond() -> None:
    found = largest_batch(JOB, with_room(300 * MIB))
    values = {probe.value: probe.verdict.kind for probe in found.probes}

    assert found.value is not None
    assert found.value > 1
    assert values[found.value] is Fit.FITS
    assert values[found.value + 1] is not Fit.FITS

"""Packed rows: the same text in as few rows as it fills."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from profiler.optimizations.registry import setup_for, validate
from profiler.spec import Job, Model, Toggle, Workload


def packed(batch: int, fill: str, micro_batches: int = 1) -> Job:
    workload = Workload(batch=batch, micro_batches=micro_batches)
    return validate(Job(model=Model(name="tiny-llama"), workload=workload, toggles=(Toggle("packing", (("fill", fill),)),)))


def test_a_batch_of_half_full_rows_is_half_as_many() -> None:
    assert packed(8, "0.5") == validate(Job(model=Model(name="tiny-llama"), workload=Workload(batch=4)))


def test_a_share_that_is_no_binary_number_is_not_rounded_up_by_its_error() -> None:
    assert packed(100, "0.07").workload.batch == 7  # 100 x 0.07 is 7.000000000000001


def test_rows_can_still_be_cut_into_micro_batches() -> None:
    assert packed(12, "0.4", micro_batches=3).workload.batch == 6  # 4.8 rows, and the next multiple of 3


def test_rows_that_need_as_many_packed_say_so() -> None:
    job = packed(2, "0.9")

    assert job.workload.batch == 2
    assert setup_for(job).notes == ["0 of 2 rows saved: 2 rows filled to 90% need as many when they are packed."]


@given(st.integers(1, 500), st.floats(0.001, 1.0))
def test_the_text_fits_and_one_row_less_would_not_hold_it(batch: int, fill: float) -> None:
    rows = packed(batch, repr(fill)).workload.batch

    assert rows >= batch * fill - 1e-6
    assert rows - 1 < batch * fill

"""Runs held against what each memory may hold, at the byte where the verdict changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from profiler.analysis.budgets import NO_BUDGETS, Budgets, Tier
from profiler.analysis.footprint import Footprint, Level
from profiler.recording import Category, Phase, Provenance

LEVEL = Level(Phase.FORWARD, 80, {Category.ACTIVATION: 80})
RUN = Footprint(recording_id=None, provenance=Provenance.SIMULATED, peak=LEVEL, peak_step=0, phases={}, reserved_bytes=100, host_bytes=30)


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        (Budgets(device_bytes=100, host_bytes=30), [(Tier.DEVICE, True, 0, 0), (Tier.HOST, True, 0, 0)]),
        (Budgets(device_bytes=99, host_bytes=31), [(Tier.DEVICE, False, 1, -1), (Tier.HOST, True, 0, 1)]),
        (Budgets(host_bytes=10), [(Tier.HOST, False, 20, -20)]),
        (Budgets(device_bytes=120), [(Tier.DEVICE, True, 0, 20)]),
        (NO_BUDGETS, []),
    ],
)
def test_each_memory_has_a_verdict_of_its_own_and_without_a_budget_none(
    budgets: Budgets, expected: list[tuple[Tier, bool, int, int]]
) -> None:
    found = budgets.verdicts(RUN)
    assert [(one.tier, one.fits, one.over_bytes, one.left_bytes) for one in found] == expected


def test_without_an_allocator_what_is_allocated_is_held_against_the_budget() -> None:
    (reserved,) = Budgets(device_bytes=90).verdicts(RUN)
    (allocated,) = Budgets(device_bytes=90).verdicts(replace(RUN, reserved_bytes=None))

    assert (reserved.needed_bytes, reserved.kind, reserved.fits) == (100, "reserved", False)
    assert (allocated.needed_bytes, allocated.kind, allocated.fits) == (80, "allocated", True)
    assert (reserved.phrase, allocated.phrase) == ("10 B too much, reserved", "10 B to spare, allocated")


def test_a_verdict_is_plain_data() -> None:
    (verdict,) = Budgets(host_bytes=10).verdicts(RUN)
    assert verdict.to_json() == {"budget_bytes": 10, "needed_bytes": 30, "over_bytes": 20, "fits": False}

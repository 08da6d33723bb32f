"""Differences of peaks: sums that must be exact, what overlaps, who is beaten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.footprint import Footprint, Level
from profiler.analysis.savings import category_differences, dominated, interactions, waterfall
from profiler.recording import Category, Phase, Provenance

CATEGORIES = st.dictionaries(st.sampled_from(Category), st.integers(1, 2**45), max_size=6)


def footprint(categories: dict[Category, int], phase: Phase = Phase.BACKWARD) -> Footprint:
    level = Level(phase, sum(categories.values()), categories)
    return Footprint(recording_id=None, provenance=Provenance.SIMULATED, peak=level, peak_step=1, phases={phase: level})


@given(CATEGORIES, st.lists(CATEGORIES, max_size=8))
def test_the_steps_of_a_waterfall_add_up_to_the_difference(first: dict[Category, int], rest: list[dict[Category, int]]) -> None:
    baseline, runs = footprint(first), [footprint(categories) for categories in rest]
    steps = waterfall(baseline, [(f"toggle {num}", run) for num, run in enumerate(runs)])
    last = runs[-1] if runs else baseline
    assert sum(step.saved_bytes for step in steps) == baseline.peak_bytes - last.peak_bytes
    for step in steps:
        assert sum(step.saved_by_category.values()) == step.saved_bytes
        assert 0 not in step.saved_by_category.values()


def test_differences_are_before_minus_after_with_the_largest_first() -> None:
    before = {Category.PARAMETER: 10, Category.ACTIVATION: 100, Category.LOGITS: 7}
    after = {Category.PARAMETER: 10, Category.ACTIVATION: 40, Category.TEMPORARY: 90}
    differences = category_differences(before, after)
    assert list(differences.items()) == [(Category.TEMPORARY, -90), (Category.ACTIVATION, 60), (Category.LOGITS, 7)]


def test_what_others_save_already_is_overlap_and_what_needs_them_is_synergy() -> None:
    def of(num_bytes: int) -> Footprint:
        return footprint({Category.ACTIVATION: num_bytes})

    found = interactions(
        of(100),
        of(40),
        alone={"a": of(60), "b": of(70), "c": of(95), "d": None},
        without={"a": of(50), "b": of(70), "c": of(60), "d": of(50)},
    )
    assert [(item.alone_bytes, item.last_bytes, item.kind) for item in found] == [
        (40, 10, "overlap"),
        (30, 30, "independent"),
        (5, 20, "synergy"),
        (None, 10, "unknown"),
    ]


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_somebody_is_never_beaten_and_who_is_beaten_is_beaten_by_one_of_them(points: dict[str, tuple[int, int, int]]) -> None:
    beaten = dominated(points)
    best = {name: point for name, point in points.items() if name not in beaten}
    assert best
    for name in beaten:
        assert any(all(a <= b for a, b in zip(point, points[name], strict=True)) and point != points[name] for point in best.values())


def test_a_run_whose_time_is_not_known_beats_nobody_who_knows_his() -> None:
    assert dominated({"simulated": (5, None, None), "measured": (10, 1.0, 2.0)}) == frozenset()
    assert dominated({"small": (5, None), "large": (10, None)}) == {"large"}

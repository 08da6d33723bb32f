"""Charts of comparisons: bars and waterfalls that add up to the byte, points that are beaten, two timelines phase over phase."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analysis.budgets import Budgets
from profiler.analysis.footprint import Footprint, Level, Spread
from profiler.analysis.savings import waterfall
from profiler.analysis.timeline import Timeline
from profiler.figures.comparison import NOT_MEASURED, comparison_figure, comparison_table
from profiler.figures.overlaid import overlaid_figure
from profiler.figures.pareto import known_costs, pareto_figure
from profiler.figures.waterfall import waterfall_figure, waterfall_table
from profiler.recording import Category, Phase, Provenance
from tests.builders import Tape, small_training

SIZES = st.dictionaries(st.sampled_from(Category), st.integers(1, 2**40), max_size=6)
A, B, C = Category.PARAMETER, Category.ACTIVATION, Category.LOGITS


def run(categories: dict[Category, int], **facts: object) -> Footprint:
    level = Level(Phase.BACKWARD, sum(categories.values()), categories)
    made = Footprint(recording_id="x", provenance=Provenance.SIMULATED, peak=level, peak_step=1, phases={})
    return replace(made, **facts)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=25)  # plotly's checks take their time
@given(st.lists(SIZES, min_size=1, max_size=5))
def test_the_bands_of_each_bar_sum_to_its_peak(runs: list[dict[Category, int]]) -> None:
    named = {f"run {num}": run(categories) for num, categories in enumerate(runs)}
    figure = comparison_figure(named)
    peaks = [one.peak_bytes for one in named.values()]
    assert [sum(trace.x[row] for trace in figure.data) for row in range(len(peaks))] == (peaks if any(peaks) else [0] * len(peaks))


@given(st.lists(SIZES, min_size=1, max_size=5))
def test_the_changes_of_each_row_sum_to_its_difference_from_the_first(runs: list[dict[Category, int]]) -> None:
    table = comparison_table({f"run {num}": run(categories) for num, categories in enumerate(runs)})
    named = [category.label.lower() + "_bytes" for category in Category]
    changes = table[[name for name in table.columns if name in named]].sum(axis=1)
    assert changes.tolist() == table["against_first_bytes"].tolist()
    assert (table["peak_bytes"] - table["peak_bytes"].iloc[0]).tolist() == table["against_first_bytes"].tolist()


def test_every_run_has_its_name_and_size_above_its_bar_and_names_are_no_markup() -> None:
    figure = comparison_figure({"baseline": run({A: 3 * 2**30}), "<b>": run({A: 2**30})})
    assert [note.text for note in figure.layout.annotations] == ["baseline: 3.00 GiB", "&lt;b>: 1.00 GiB"]
    assert list(figure.data[0].y) == [0, -1]


def test_the_budget_is_a_line_that_the_axis_reaches() -> None:
    for figure in (
        comparison_figure({"one": run({A: 10}), "two": run({A: 5})}, budget_bytes=29),
        waterfall_figure(waterfall(run({A: 10}), [("t", run({A: 5}))]), budget_bytes=29),
    ):
        assert figure.layout.shapes[-1].x0 == 29
        assert figure.layout.xaxis.range[1] > 29
        assert "budget 29 B" in figure.layout.annotations[-1].text


def test_a_budget_far_above_all_runs_is_not_drawn() -> None:
    figure = comparison_figure({"one": run({A: 10})}, budget_bytes=31)
    assert not figure.layout.shapes
    assert figure.layout.xaxis.range[1] < 20


def test_what_was_not_measured_is_said_and_never_a_number() -> None:
    table = comparison_table({"simulated": run({A: 1}), "measured": run({A: 1}, losses=(2.5,), cpu_seconds=Spread(0.5, 0.4, 0.6, 3))})
    assert table["loss"].tolist() == [NOT_MEASURED, "2.5000"]
    assert table["step_time"].tolist() == [NOT_MEASURED, "500 ms (400 ms to 600 ms)"]
    assert table["loss_against_first"].tolist() == [NOT_MEASURED, NOT_MEASURED]


def test_losses_are_told_against_the_first_run_and_against_what_reruns_differ() -> None:
    first = run({A: 1}, losses=(3.0, 2.5), repeated_losses=(3.0, 2.501))
    table = comparison_table({"first": first, "within": run({A: 1}, losses=(2.5005,)), "beyond": run({A: 1}, losses=(2.25,), host_bytes=7)})

    assert table["loss_against_first"].tolist() == ["+0", "+0.0005, as reruns differ", "-0.25"]
    assert table["host_bytes"].tolist() == [0, 0, 7]


def test_the_table_tells_by_how_much_each_budget_is_exceeded_and_nothing_without_one() -> None:
    runs = {"first": run({A: 10}, host_bytes=3), "second": run({A: 4}, host_bytes=8)}
    table = comparison_table(runs, Budgets(device_bytes=6, host_bytes=5))

    assert table["over_budget_bytes"].tolist() == [4, 0]
    assert table["over_host_budget_bytes"].tolist() == [0, 3]
    assert "over_budget_bytes" not in comparison_table(runs, Budgets(host_bytes=5))
    assert "over_host_budget_bytes" not in comparison_table(runs)


@settings(deadline=None, max_examples=25)
@given(SIZES, st.lists(SIZES, min_size=1, max_size=6))
def test_each_step_of_the_waterfall_begins_where_the_one_before_ended(first: dict[Category, int], rest: list[dict[Category, int]]) -> None:
    savings = waterfall(run(first), [(f"t{num}", run(categories)) for num, categories in enumerate(rest)])
    (bar,) = waterfall_figure(savings).data
    level = bar.x[0]
    for saving, base, length in zip(savings, bar.base[1:-1], bar.x[1:-1], strict=True):
        start, end = (base + length, base) if saving.saved_bytes >= 0 else (base, base + length)
        assert start == level
        level = end
    assert (bar.base[-1], bar.x[-1]) == (0, level)
    table = waterfall_table(savings)
    assert table["saved_bytes"].sum() == table["before_bytes"].iloc[0] - table["after_bytes"].iloc[-1]


def test_a_toggle_that_costs_memory_looks_different() -> None:
    (bar,) = waterfall_figure(waterfall(run({A: 10}), [("saves", run({A: 5})), ("costs", run({A: 8}))])).data
    assert list(bar.marker.pattern.shape) == ["", "", "/", ""]
    assert bar.marker.color[1] != bar.marker.color[2]


def test_a_waterfall_without_steps_says_so() -> None:
    assert "No step" in waterfall_figure(()).layout.annotations[0].text


def test_beaten_runs_are_open_circles_and_runs_without_the_cost_are_left_out() -> None:
    runs = {
        "good": run({A: 5}, estimated_step_seconds=1.0),
        "beaten": run({A: 9}, estimated_step_seconds=2.0),
        "unknown": run({A: 1}),
    }
    beaten, good = pareto_figure(runs, frozenset({"beaten"}), cost="time").data
    assert (list(beaten.x), list(beaten.y), beaten.marker.symbol) == ([9], [2.0], "circle-open")
    assert (list(good.x), list(good.y), good.marker.symbol) == ([5], [1.0], "circle")
    assert known_costs(runs) == ["time"]
    assert "not measured" in pareto_figure(runs, frozenset(), cost="loss").layout.annotations[0].text


def test_names_that_would_lie_over_each_other_are_left_to_hovering() -> None:
    runs = {f"a rather long name {num}": run({A: 100 + num}, estimated_step_seconds=1.0) for num in range(4)}
    _, good = pareto_figure(runs, frozenset(), cost="time").data
    assert [text for text in good.text if text] == ["a rather long name 0"]


def step(tape: Tape, sizes: dict[Phase, int], pause: int = 0) -> Timeline:
    with tape.step(0):
        for phase, size in sizes.items():
            with tape.phase(phase):
                block = tape.alloc(size)
                for _ in range(pause):
                    tape.free(tape.alloc(1))
                tape.free(block)
    return Timeline.of(tape.recording())


@pytest.mark.parametrize("pause", [0, 7])
def test_phases_lie_over_each_other_however_long_they_take(pause: int) -> None:
    quick = step(Tape(), {Phase.FORWARD: 50, Phase.BACKWARD: 80})
    slow = step(Tape(), {Phase.FORWARD: 60, Phase.BACKWARD: 20}, pause)
    figure = overlaid_figure((("quick", quick), ("slow", slow)))
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    peaks = [trace for trace in figure.data if trace.mode != "lines"]
    assert [(min(line.x), max(line.x) <= 2) for line in lines] == [(0, True), (0, True)]
    assert [int(peak.x[0]) for peak in peaks] == [1, 0], "the peak of one is in backward, of the other in forward"
    assert list(figure.layout.xaxis.ticktext) == ["forward", "backward"]


def test_runs_with_other_phases_and_runs_aligned_by_time_have_an_axis_of_time() -> None:
    one, other = step(Tape(), {Phase.FORWARD: 50, Phase.BACKWARD: 80}), step(Tape(), {Phase.FORWARD: 50})
    for figure in (overlaid_figure((("a", one), ("b", other))), overlaid_figure((("a", one), ("b", one)), aligned="time")):
        assert "since the step began" in figure.layout.xaxis.title.text


def test_only_the_step_with_the_peak_is_drawn_and_its_peak_is_exact() -> None:
    timeline = Timeline.of(small_training())
    line, peak, *_ = overlaid_figure((("a", timeline), ("b", timeline))).data
    assert max(line.y) == peak.y[0] == timeline.peak_bytes == 2_000
    assert len(line.x) < timeline.num_events

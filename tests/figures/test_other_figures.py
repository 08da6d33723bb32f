"""The peak's bar, the module icicle, and the live and history charts, each with its table."""

from __future__ import annotations

import pytest

from profiler.analysis.attribution import module_tree
from profiler.analysis.timeline import Timeline
from profiler.figures.axes import byte_axis
from profiler.figures.composition import composition_figure, composition_table
from profiler.figures.history import history_figure, history_table, live_figure, live_table
from profiler.figures.modules import module_figure, module_table
from profiler.recording import Category
from profiler.units import GIB, MIB
from tests.builders import small_training, synthetic_recording

PEAK = {Category.UNKNOWN: 5, Category.PARAMETER: 75, Category.ACTIVATION: 20}


def test_the_bar_has_every_category_in_stack_order_and_labels_the_large_ones() -> None:
    figure = composition_figure(PEAK)

    assert [(trace.name, trace.x[0]) for trace in figure.data] == [("Parameter", 75), ("Activation", 20), ("Unknown", 5)]
    assert [trace.text[0] for trace in figure.data] == ["Parameter<br>75 %", "Activation<br>20 %", ""]
    assert figure.data[2].marker.pattern.shape == "x"


def test_the_composition_table_shares_sum_to_one() -> None:
    table = composition_table(PEAK)

    assert table["share"].sum() == pytest.approx(1)
    assert table["category"].tolist() == ["Parameter", "Activation", "Unknown"]
    assert table["definition"].iloc[0] == Category.PARAMETER.value


def test_a_card_is_a_line_across_the_bar_or_beyond_its_end() -> None:
    total = sum(PEAK.values())
    for capacity_bytes in (total // 2, 2 * total):
        figure = composition_figure(PEAK, capacity_bytes=capacity_bytes)

        assert figure.layout.shapes[0].x0 == capacity_bytes
        assert figure.layout.xaxis.range[1] > max(total, capacity_bytes)


def test_an_empty_instant_says_so() -> None:
    assert "Nothing is allocated" in composition_figure({}).layout.annotations[0].text
    assert len(composition_table({})) == 0


def test_the_icicle_has_at_most_the_nodes_it_was_given_and_exact_values() -> None:
    timeline = Timeline.of(synthetic_recording(20_000))
    tree = module_tree(timeline, timeline.peak_event, max_nodes=60)

    icicle = module_figure(tree).data[0]

    assert len(icicle.ids) == len(tree) <= 60
    assert icicle.values[0] == timeline.peak_bytes
    assert icicle.branchvalues == "total"


def test_the_module_table_is_largest_first_with_labels() -> None:
    timeline = Timeline.of(small_training())

    table = module_table(module_tree(timeline, timeline.peak_event))

    assert table["module"].iloc[0] == "all"
    assert table["share"].iloc[0] == 1
    assert table["bytes"].is_monotonic_decreasing
    assert set(table["category"]) <= {category.label for category in Category}


def test_the_live_chart_leaves_out_what_was_never_read() -> None:
    only_rss = live_figure([(0.0, 5 * MIB, None), (1.0, 6 * MIB, None)])
    both = live_figure([(0.0, 5 * MIB, MIB)], theme="dark")

    assert [trace.name for trace in only_rss.data] == ["Resident set"]
    assert [trace.name for trace in both.data] == ["Resident set", "Allocated"]
    assert only_rss.layout.yaxis.title.text == "Memory (MiB)"
    assert live_table([(0.0, 1, None)])["rss_bytes"].tolist() == [1.0]


@pytest.mark.parametrize("series", [{}, {"a": [None, None]}])
def test_charts_without_readings_wait(series: dict[str, list[None]]) -> None:
    figure = history_figure([0.0, 1.0], series, unit="%", title="Utilization")

    assert "Waiting" in figure.layout.annotations[0].text
    assert "Waiting" in live_figure([]).layout.annotations[0].text


def test_a_history_counts_back_from_now_and_shows_its_limit() -> None:
    figure = history_figure([10.0, 12.0], {"Used": [1.0 * GIB, 2.0 * GIB]}, unit="bytes", title="Memory", limit=4.0 * GIB)

    assert figure.data[0].x.tolist() == [-2, 0]
    assert figure.layout.yaxis.title.text == "Memory (GiB)"
    assert figure.layout.shapes[0].y0 == 4 * GIB
    assert history_table([1.0], {"a": [None]}).shape == (1, 2)


@pytest.mark.parametrize(
    ("highest", "unit"), [(0, "B"), (900, "B"), (1024, "KiB"), (3 * MIB, "MiB"), (2.4 * GIB, "GiB"), (5000 * GIB, "GiB")]
)
def test_byte_axes_have_few_round_ticks_below_their_top(highest: float, unit: str) -> None:
    axis = byte_axis(highest)

    assert axis.unit == unit
    assert 2 <= len(axis.values) <= 8
    assert axis.values[0] == 0
    assert axis.values[-1] <= axis.top_bytes
    assert axis.top_bytes >= highest

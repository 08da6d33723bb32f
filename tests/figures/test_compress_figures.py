"""Charts of the compression lab: beaten results are open, formats cross dense where the arithmetic says, bars are losses gained."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.compression.products import ProductTime
from profiler.compression.result import LayerFacts
from profiler.compression.sparse_formats import FORMATS, break_even
from profiler.compression.target import Goal, Target, Worth, candidates, known_worths
from profiler.figures.break_even import break_even_figure, break_even_table, break_even_time_figure, store_toggle, stored
from profiler.figures.experiments import candidates_table, results_table, size_quality_figure, stages_table, tried_table
from profiler.figures.sensitivity import MOST_BARS, sensitivity_figure, sensitivity_table, weights_figure
from profiler.figures.theme import theme_named
from tests.compression.results import result

SPARSE = [
    result("prune:amount=0.9", "store-csr", held=400, seconds=0.8, zero_share=0.9),
    result("prune", "store-csr", held=1100, seconds=3.0, zero_share=0.5),
    result("prune", "store-csr:index=int64,tight=false", held=1900, seconds=3.0, zero_share=0.5),
    result("prune", "store-bitmask", held=560, seconds=1.7, zero_share=0.5),
]


def drawn(figure: object, name: str) -> list[tuple[float, float]]:
    trace = next(trace for trace in figure.data if trace.name == name)  # type: ignore[attr-defined]
    return list(zip(trace.x, trace.y, strict=True))


def at(figure: object, name: str) -> dict[str, float]:
    """Return where the points of a trace stand on the axis upward, as its ticks say, by their names."""
    axis, trace = figure.layout.yaxis, next(trace for trace in figure.data if trace.name == name)  # type: ignore[attr-defined]
    ticks = dict(zip(axis.tickvals, map(float, axis.ticktext), strict=True))
    assert list(ticks.values()) == sorted(ticks.values())
    told = [next((value for tick, value in ticks.items() if math.isclose(tick, y, rel_tol=1e-6, abs_tol=1e-9)), y) for y in trace.y]
    return {said.partition("<br>")[0]: value for said, value in zip(trace.customdata, told, strict=True)}


def test_the_untouched_model_is_a_point_and_beaten_results_are_open() -> None:
    found = [result("nf4", held=200, loss=1.5), result("packed-int", held=187, loss=1.41), result("bfloat16", held=500, loss=1.399)]

    figure = size_quality_figure(found, Goal.MEMORY)

    assert at(figure, "Beaten by another result") == {"nf4": 0.1, "untouched": 0.0}
    assert list(at(figure, "Not beaten")) == ["packed-int", "bfloat16"]
    assert [x for x, _ in drawn(figure, "Not beaten")] == [187, 500]
    assert figure.layout.yaxis.title.text == "Loss given up (nats per byte)"


def test_damaged_models_leave_room_for_those_that_lost_little_and_what_gained_is_below_0() -> None:
    found = [result("prune", loss=6.4), result("zstd", loss=1.4), result("nf4", loss=1.41), result("fine-tune", loss=1.3)]

    figure = size_quality_figure(found, Goal.MEMORY)

    heights = {said.partition("<br>")[0]: y for trace in figure.data for said, y in zip(trace.customdata, trace.y, strict=True)}
    assert heights["fine-tune"] < heights["zstd"] == 0 < heights["nf4"] < heights["prune"] <= max(figure.layout.yaxis.tickvals)
    assert heights["nf4"] > heights["prune"] / 4
    assert figure.layout.yaxis.ticktext == ("-0.1", "-0.01", "-0.001", "0", "0.001", "0.01", "0.1", "1", "10")


def test_what_is_given_up_may_be_accuracy_or_bleu() -> None:
    found = [result("nf4", accuracy=0.49, bleu=70.0), result("prune", held=600, loss=2.0, accuracy=0.5, bleu=80.0)]

    accuracy, bleu = (size_quality_figure(found, Goal.MEMORY, worth) for worth in (Worth.ACCURACY, Worth.BLEU))

    assert at(accuracy, "Not beaten") == {"nf4": 1.0, "prune": 0.0}
    assert at(bleu, "Not beaten") == {"nf4": 10.0, "prune": 0.0}
    assert bleu.layout.yaxis.title.text == "BLEU given up (points of 100)"
    assert "accuracy 49.0%, BLEU 70.0" in bleu.data[1].customdata[0]
    assert known_worths(found) == list(Worth)
    assert known_worths([result("nf4")]) == [Worth.LOSS, Worth.ACCURACY]
    assert size_quality_figure([result("nf4")], Goal.MEMORY, Worth.BLEU).layout.annotations


def test_on_disk_other_results_are_best_than_in_memory() -> None:
    found = [result("zstd", held=1000, file=900), result("nf4", held=200, file=950, loss=1.41)]

    assert drawn(size_quality_figure(found, Goal.DISK), "Not beaten") == [(900, 0.0)]
    assert 200 in [x for x, _ in drawn(size_quality_figure(found, Goal.MEMORY), "Not beaten")]


def test_without_results_a_figure_says_so() -> None:
    for figure in (size_quality_figure([], Goal.DISK), break_even_time_figure([]), sensitivity_figure(result("prune")), weights_figure({})):
        assert figure.layout.annotations[0].text.endswith(".")


def test_the_table_has_the_untouched_model_first_and_shares_of_it() -> None:
    table = results_table([result("nf4", held=200, file=300, loss=1.5, seconds=2.0)])

    assert table["technique"].tolist() == ["untouched", "nf4"]
    assert table["held_share"].tolist() == [1.0, 0.2]
    assert table["file_share"].tolist() == [1.0, 0.3]
    assert table["pass_share"].tolist() == [1.0, 2.0]
    assert table["loss_gain"].tolist() == pytest.approx([0.0, 0.1])
    assert table["accuracy_share"].tolist() == [0.5, 0.5]
    assert table["fastest_us"].tolist() == pytest.approx([0.9e6, 1.8e6])
    assert table["slowest_us"].tolist() == pytest.approx([1.2e6, 2.4e6])
    assert "bleu" not in table
    assert results_table([result("nf4", bleu=71.5)])["bleu"].tolist() == [80.0, 71.5]
    assert results_table([]).empty


def test_models_of_tokens_have_their_loss_per_byte_in_the_table_and_where_it_was_not_measured_an_empty_cell() -> None:
    new, old = (replace(result("nf4", loss=2.0), unit="token", num_targets=number, num_text_bytes=8_000) for number in (2_000, None))

    table = results_table([new, old])

    assert table["loss_per_byte"].tolist()[:2] == [0.35, 0.5]
    assert table["perplexity_per_byte"].tolist()[:2] == pytest.approx([math.exp(0.35), math.exp(0.5)])
    assert math.isnan(table["loss_per_byte"].tolist()[2])
    assert "loss_per_byte" not in results_table([result("nf4")])


def test_what_techniques_counted_is_in_the_table_of_stages() -> None:
    table = stages_table(result("fine-tune", control_loss=1.3))

    assert table["stage"].tolist() == ["untouched", "fine-tune"]
    assert table["control_loss"].tolist()[1] == 1.3
    assert table.columns.tolist().index("control_loss") == table.columns.tolist().index("loss") + 1


def test_what_was_tried_says_what_of_the_target_it_misses() -> None:
    target = Target(goal=Goal.DISK, ratio=0.5, loss_gain=0.05)
    table = tried_table([result("zstd", file=900), result("nf4", file=400)], target).set_index("technique")

    assert table["meets"].to_dict() == {"zstd": "no", "nf4": "yes"}
    assert table["misses"]["zstd"] == "bytes 0.900, above 0.500"
    untried = candidates_table(candidates("smollm2", target)).set_index("technique")["loss_and_time"]
    assert (untried["packed-int"], untried["nf4"]) == ("published of this model", "measured on the lab's Llama")
    tried = candidates_table(candidates("smollm2", target, [result("nf4", model="smollm2")])).set_index("technique")["loss_and_time"]
    assert tried["nf4"] == "measured on this model"


@given(rows=st.integers(1, 300), columns=st.integers(1, 300), itemsize=st.sampled_from([1, 2, 4]))
@settings(deadline=None)
def test_each_line_crosses_dense_where_its_break_even_is(rows: int, columns: int, itemsize: int) -> None:
    figure = break_even_figure([], rows=rows, columns=columns, itemsize=itemsize)
    for format_ in FORMATS.values():
        share = break_even(format_, rows, columns, itemsize)
        for zeros, ratio in drawn(figure, format_.label):
            if share is None or zeros < share - 1 / (rows * columns):
                assert ratio >= 1
            elif zeros > share + 1 / (rows * columns):
                assert ratio < 1


def test_measured_models_are_points_in_bytes_and_a_line_in_time() -> None:
    found = stored([*SPARSE, result("nf4"), result()])

    assert [one.format for one in found] == ["bitmask", "csr-as-torch-makes-it", "csr-int32", "csr-int32"]
    assert drawn(break_even_figure(found, rows=8, columns=8), "CSR, 32-bit indices, measured") == [(0.5, 1.1), (0.9, 0.4)]
    assert drawn(break_even_time_figure([], found), "CSR, 32-bit indices, measured") == [(0.5, 3.0), (0.9, 0.8)]


def test_blocks_that_are_left_out_place_a_model_in_the_chart_and_not_single_zeros() -> None:
    found = stored([result("prune:amount=0.7", "store-bsr:block=16", held=1005, zero_share=0.7, zero_block_share=0.0)])

    assert drawn(break_even_figure(found, rows=64, columns=64), "BSR, 16 x 16, pruned in blocks, measured") == [(0.0, 1.005)]


def test_times_of_products_are_a_line_a_format_and_the_table_says_from_where_on_each_is_faster() -> None:
    pairs = ((0.9, 0.5), (0.0, 4.0), (0.8, 1.5))
    times = [ProductTime(format="csr-int64", zeros=zeros, seconds=0.1, ratio=ratio) for zeros, ratio in pairs]

    assert drawn(break_even_time_figure(times), "CSR, 64-bit indices") == [(0.0, 4.0), (0.8, 1.5), (0.9, 0.5)]
    assert [note.y for note in break_even_time_figure(times).layout.annotations] == [0]
    table = break_even_table(768, 768, times=times).set_index("format")
    assert table["faster_from_share"]["CSR as to_sparse_csr leaves it"] == pytest.approx(0.85)
    assert math.isnan(table["faster_from_share"]["Bitmask"])
    assert "faster_from_share" not in break_even_table(768, 768)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_technique_that_stores_in_it(name: str) -> None:
    one = result("prune", str(store_toggle(name)), zero_share=0.5)

    assert stored([one])[0].format == name


def test_lines_can_be_told_apart() -> None:
    figure = break_even_figure([], rows=8, columns=8, theme="dark")

    assert len({(trace.line.color, trace.line.dash) for trace in figure.data}) == len(FORMATS)


def test_the_table_of_formats_has_their_break_even() -> None:
    table = break_even_table(768, 768).set_index("format")

    assert table["smaller_from_share"]["CSR, 32-bit indices"] == pytest.approx(0.5, abs=0.001)
    assert table["at 90% zeros"]["Bitmask"] == pytest.approx(0.1 + 1 / 32, abs=0.001)


def test_the_most_sensitive_matrix_is_on_top_and_one_that_gains_has_another_colour() -> None:
    facts = tuple(LayerFacts(name=f"{name}.weight", num_weights=1000, loss=loss) for name, loss in (("a", 1.3), ("b", 1.9), ("c", 1.5)))
    found = replace(result("prune"), layers=facts)

    figure = sensitivity_figure(found)

    assert list(figure.data[0].y) == ["b", "c", "a"]
    assert list(figure.data[0].x) == pytest.approx([0.5, 0.1, -0.1])
    assert figure.data[0].marker.color[0] == theme_named("light").accent != figure.data[0].marker.color[2]
    assert sensitivity_table(found)["gain_per_million_weights"][0] == pytest.approx(500)
    many = replace(found, layers=facts * 30)
    assert len(sensitivity_figure(many).data[0].x) == MOST_BARS


def test_weights_are_drawn_before_and_after_over_the_same_edges() -> None:
    histograms = {"edges": [-1.0, 0.0, 1.0], "before": [5, 7], "after": [0, 12]}

    figure = weights_figure(histograms)

    assert [trace.name for trace in figure.data] == ["Before", "After"]
    assert list(figure.data[0].x) == list(figure.data[1].x) == [-1.0, 0.0, 1.0]
    assert list(figure.data[1].y) == [None, 12, 12]  # an empty bin has no place on a logarithmic axis


def test_names_stay_inside_the_chart_and_long_ones_are_cut() -> None:
    found = [result("nf4", held=10, loss=1.41), result("prune-global", "fine-tune", "int8-weight-only", "zstd", held=990, loss=1.3)]

    good = size_quality_figure(found, Goal.MEMORY).data[1]

    assert list(good.textposition) == ["top right", "top left"]
    assert good.text[1] == "prune-global + fine-tune + int8-wei…"


def test_names_are_no_markup() -> None:
    facts = (LayerFacts(name="<b>.weight", num_weights=1, loss=2.0),)

    assert sensitivity_figure(replace(result("prune"), layers=facts)).data[0].y[0] == "&lt;b>"
